"""Tests that need matplotlib: ``python python/tests/on_request_pictures.py``, where the wheel is installed."""

import unittest

import matplotlib

import action_matching as am
import test_ann
from action_matching import ann

matplotlib.use("Agg")


class Pictures(unittest.TestCase):
    def test_stream(self):
        adata = test_ann.cells({1.0: "day 1", 5.0: "day 5"})
        model = ann.train(adata, "day", **test_ann.FEW)
        with self.assertRaisesRegex(am.InputError, "call ann.velocity first"):
            ann.stream(adata)
        ann.velocity(adata, model)
        for color in (None, "action", "day"):
            axes = ann.stream(adata, color=color)
            self.assertTrue(axes.patches and axes.collections)


if __name__ == "__main__":
    unittest.main()
