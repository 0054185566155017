"""Reproduction: the tables of the LDDM paper (Chen et al. 2024), and the reference rows that it lacks.

baselines   clips that any model must beat: no network makes them
table1      quality of generated clips, by method
table2      classifiers trained on real and synthetic clips; its cells are done by any number of processes
"""
