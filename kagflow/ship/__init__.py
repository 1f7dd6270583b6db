"""What leaves and enters through Kaggle: download, pack, kernel, submission, hours and history.

May import the core and task; never torch, infer, learn or rehearse. Only `remote*.py` speaks to
Kaggle, and nothing here depends on who answers: the real site, the embedded Kaggle, another server.
"""
