"""VxData: a serverless, versioned lakehouse for medical-imaging research."""

__version__ = "0.1.0"
