"""What the competition is: labels, run lengths, metric, submission file, image index, folds.

Travels to Kaggle. May import the standard library, numpy, cv2 and kagflow.errors,
kagflow.resolve, kagflow.durable, kagflow.progress; never torch, pydantic, typer, rich or kaggle.
"""
