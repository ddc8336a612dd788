"""The process in which a network is trained: its threads, its seeds, and operations that give the same bits."""

import os

import keras
import tensorflow as tf

from gotorb.errors import ConfigError


def prepare_process(seed: int, threads: int | None) -> int:
    """Make the process deterministic and pin its threads.

    Parameters
    ----------
    seed : int
        Seed of Python, numpy and TensorFlow.
    threads : int, optional
        CPU threads inside an operation; part of the result's identity. None takes what is set already,
        or one per core.

    Returns
    -------
    int
        The threads in force.

    Raises
    ------
    ConfigError
        If TensorFlow runs already with another number: it cannot be changed in a running process.
    """
    current = tf.config.threading.get_intra_op_parallelism_threads()
    wanted = threads or current or os.cpu_count() or 1
    if wanted != current:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(wanted)
        except RuntimeError:
            if threads is not None:
                raise ConfigError(
                    f"TensorFlow already runs in this process with {current or 'its own choice of'} threads, "
                    f"train.threads is {threads}; train first thing in a new Python, or leave threads out"
                ) from None
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    return wanted


def check_strategy(strategy: tf.distribute.Strategy | None) -> None:
    """Refuse a strategy over several machines.

    Raises
    ------
    ConfigError
        If Keras cannot fit under it.
    """
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy | tf.distribute.ParameterServerStrategy):
        raise ConfigError(
            f"Keras 3 cannot fit under a strategy over several machines ({type(strategy).__name__}; keras issue "
            "20585); use MirroredStrategy over the GPUs of one machine, see docs/training.md"
        )
