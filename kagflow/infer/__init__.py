"""infer: what the kernel runs, and what training predicts with.

May import the core that travels (errors, resolve, durable, progress), kagflow.task, the standard
library, numpy, pandas, cv2, torch and safetensors. Model libraries (segmentation_models_pytorch,
timm) are imported only inside the function that builds a model, since Kaggle's image may lack them
until the pack is installed and since importing them costs seconds.
"""
