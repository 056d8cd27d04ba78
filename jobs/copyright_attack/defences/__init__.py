"""Defences of judges: jittered peaks, adversarial training, votes of several; what each gains and costs.

judges |= defended(params.defences, params.judges.neural, judges, run)    enrolled and asked as all others
rows = defence_rows(params.defences, asked, others, rate)                 with votes of the judges that are there
"""
