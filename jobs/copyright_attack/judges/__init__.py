"""Judges of which song a sound is of: programs and matchers that know nothing of the attack, and a neural one.

judges = chosen(params.judges, run)                      those that are there; the neural one is trained
enrolment = enrol(judges, songs, run)                    with the songs of the database, in cells
scores = scores_of(enrolment, sounds, rate, run, "…")    (sounds, songs) by judge, in cells
thresholds = calibrated(scores of other songs, params.judges.false_alarms)
verdicts = verdicts_of(enrolment, scores)                by each judge's own rule
"""
