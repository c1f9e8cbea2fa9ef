"""What cloud platforms want of a container: SageMaker, and Vertex AI."""
