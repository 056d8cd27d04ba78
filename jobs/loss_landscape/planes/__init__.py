"""Lines and planes through weight space, and the directions that span them."""
