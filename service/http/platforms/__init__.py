"""What cloud platforms want of a container: SageMaker and Vertex AI; and MLflow's clients."""
