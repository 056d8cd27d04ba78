"""How poisons are made: recipes, the attacks behind them, and their search as cells."""
