"""The TensorFlow Federated room: federated averaging, plain and private."""
