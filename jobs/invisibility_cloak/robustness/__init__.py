"""How far a patch still hides people when it is smaller, turned, in another light, or partly covered."""
