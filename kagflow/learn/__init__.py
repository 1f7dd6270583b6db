"""How a model comes to be and what it is worth: from fetched data to runs and ensembles.

May import the core, `kagflow.task`, `kagflow.infer`, torch, albumentations and smp; never `ship`,
`rehearse`, `report`, `cli`, typer, rich or kaggle.
"""
