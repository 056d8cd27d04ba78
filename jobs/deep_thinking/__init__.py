"""Deep thinking: recurrent networks that solve harder problems by thinking longer."""
