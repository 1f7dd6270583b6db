"""kagflow: a whole offline Kaggle code competition from one command line."""

__version__ = "0.1.0"
