"""Evaluation: sets of clips are measured once each, and measurements are compared.

clips     real windows, generated fakes, repeated first frames: read one clip at a time
listed    stored fakes, and which real clip each was made from
windows   which frames of which files are a clip
measure   features, numbers and curves of every clip of a set, in one pass
compare   distances between sets, with reference lines and intervals over patients
energy    energy scores over several samples a still
networks  which metrics are asked for, and which of their networks are there
divisions Frechet distances over divisions of the patients
leaks     were these weights trained on these clips?
report    JSON and the printed table
plot      the same as a picture
"""
