"""How well judges identify what nobody attacks: ROC, duration, noise, speed, pitch, number of songs, cost."""
