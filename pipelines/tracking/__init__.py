"""The only room that imports MLflow, and only once a store is opened: error paths and --help do not wait for it."""
