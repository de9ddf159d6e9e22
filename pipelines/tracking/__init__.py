"""What runs leave behind. The only room that knows MLflow, which it imports once a store is opened."""
