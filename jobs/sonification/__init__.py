"""Sonification: hear what a network has learnt."""
