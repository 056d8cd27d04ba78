"""The job `poison_frogs`: clean-label poisons, victims retrained on them, and what a target became."""
