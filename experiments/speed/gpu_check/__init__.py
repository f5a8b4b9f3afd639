"""Checks of mmlab's CUDA code on a machine with a GPU.

Run in the root of the repository:

    bash experiments/speed/gpu_check.sh
    python -m experiments.speed.gpu_check --device cuda --output gpu_check.json --budget 400
    python -m experiments.speed.gpu_check --device cpu --small --output gpu_check.json

The last one is a dry run without a GPU on small data; Triton then interprets the kernels. The JSON
file is written after every section. A section that raises stores its traceback, and the next
section runs. Some sections replace private parts of mmlab in their own process (``internals.py``);
no file of the repository is changed.
"""
