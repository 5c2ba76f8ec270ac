"""The Python API; `import loracle` offers its public names, and the command line calls it.

running.py   run, resume: from candidates and a plan, or a run folder, to a Run
run.py       Run, open_run: a run folder, read from its files
judging.py   decide, compare: what the scores of runs support
files.py     check, score: files without a run
frames.py    records as pandas frames
quiet.py     what libraries print while Loracle works
"""
