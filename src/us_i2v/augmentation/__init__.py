"""Making a data set of clips from a data set of stills.

`planning` turns stills into jobs, one a clip, without touching a model; `settings` pins what was asked
for in the output folder; `synthesis` runs the jobs and may be stopped and started at any time; `outputs`
says where a clip's mask lies and puts both in place; `manifest` lists what was made.
"""
