"""The embedded Kaggle on loopback: wire protocol, store, kernel runner, sandbox, scorer.

May import the core and task, kagglesdk's types, starlette and uvicorn; never ship, learn or kaggle.
"""
