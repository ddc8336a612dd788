"""Memory of batches is used again when nobody holds the batch, never before."""

import gc

import numpy as np
import tensorflow as tf

from gotorb.training.buffers import ALIGNMENT, Buffers

SHAPE = (8, 5, 5, 2)


def test_what_is_held_is_left_alone_and_what_was_let_go_is_used_again() -> None:
    buffers = Buffers(SHAPE)
    held = [buffers.take(8) for _ in range(3)]
    part = held[1][2:4]
    for number, array in enumerate(held):
        array[:] = number
    del array, held
    again = [buffers.take(8) for _ in range(3)]
    for array in again:
        array[:] = 9
    assert (part == 1).all()
    assert len(buffers) == 4


def test_a_tensor_that_shares_the_memory_holds_it() -> None:
    buffers = Buffers(SHAPE)

    def batches():
        for number in range(40):
            batch = buffers.take(8 if number % 2 else 3)
            batch[:] = number
            yield batch

    spec = tf.TensorSpec((None, *SHAPE[1:]), tf.float32)
    stream = tf.data.Dataset.from_generator(batches, output_signature=spec).prefetch(4)
    kept = list(stream)
    assert [np.unique(tensor).tolist() for tensor in kept] == [[number] for number in range(40)]
    assert len(buffers) >= 40
    del kept
    gc.collect()
    assert [float(tf.reduce_max(tensor)) for tensor in stream] == list(range(40))
    assert len(buffers) < 60


def test_arrays_are_aligned_and_as_large_as_asked() -> None:
    buffers = Buffers(SHAPE)
    arrays = [buffers.take(n) for n in (1, 8, 5)]
    assert [array.shape for array in arrays] == [(1, 5, 5, 2), (8, 5, 5, 2), (5, 5, 5, 2)]
    assert all(array.ctypes.data % ALIGNMENT == 0 and array.dtype == np.float32 for array in arrays)
