"""One self-contained HTML file of what runs, ensembles and submissions are worth.

May import learn, infer, task and the core; never ship: whoever calls brings the history along.
"""
