import unittest

import anndata
import numpy as np
import pandas as pd

import action_matching as am
import flow
from action_matching import ann

FEW = {**flow.SETTINGS, "training": {"steps": 40, "interior_rows": 64, "boundary_rows": 64}}


def cells(times):
    x, days = flow.data(60)
    obs = pd.DataFrame({"day": [times[day] for day in days]}, index=[f"cell{i}" for i in range(len(x))])
    return anndata.AnnData(X=np.zeros((len(x), 1), np.float32), obs=obs, obsm={"X_pca": x})


class Times(unittest.TestCase):
    def test_numbers_and_texts(self):
        for first, second in [(1.0, 5.0), ("1", "5"), ("day 1", "day 5"), ("E1.0", "E5.0"), ("1h", "5h")]:
            adata = cells({1.0: first, 5.0: second})
            for column in (adata.obs["day"], adata.obs["day"].astype("category")):
                adata.obs["day"] = column
                np.testing.assert_array_equal(ann.times_of(adata, "day"), flow.data(60)[1])

    def test_what_has_no_time(self):
        for first, second, text in [
            ("12h", "2d", "units"),
            ("day 1", "control", "no number"),
            (1.0, np.nan, "some cells"),
        ]:
            with self.assertRaisesRegex(am.InputError, text):
                ann.times_of(cells({1.0: first, 5.0: second}), "day")
        with self.assertRaisesRegex(am.InputError, "obs/hour: does not exist .use one of: day"):
            ann.times_of(cells({1.0: 1, 5.0: 5}), "hour")


class Annotation(unittest.TestCase):
    def test_velocity_is_written_where_scvelo_looks(self):
        adata = cells({1.0: "day 1", 5.0: "day 5"})
        model = ann.train(adata, "day", device="cpu", **FEW)
        copy = ann.velocity(adata, model, copy=True)
        self.assertNotIn("action", adata.obs)
        self.assertIsNone(ann.velocity(adata, model))
        x, times = flow.data(60)
        want = model.velocity(x, times)
        np.testing.assert_allclose(adata.obsm["velocity_pca"], want)
        self.assertEqual(adata.obsm["velocity_pca"].dtype, np.float32)
        np.testing.assert_allclose(adata.obs["speed"], np.linalg.norm(want, axis=1), rtol=1e-6)
        np.testing.assert_allclose(adata.obs["action"], model.potential(x, times), rtol=1e-6)
        np.testing.assert_array_equal(copy.obs["hjb_residual"], adata.obs["hjb_residual"])
        for time in (1, 5):
            residual = model.hjb_residual(x, times)[times == time]
            written = adata.obs["hjb_residual"][times == time]
            np.testing.assert_allclose(written, residual - residual.mean(), rtol=1e-4, atol=1e-5)
        self.assertNotIn("growth_rate", adata.obs)
        self.assertEqual(dict(adata.uns["amatch"]), {"time_key": "day", "basis": "X_pca"})

    def test_what_is_missing_is_named(self):
        adata = cells({1.0: 1, 5.0: 5})
        with self.assertRaisesRegex(am.InputError, "obsm/X_umap: does not exist .use one of: X_pca"):
            ann.train(adata, "day", "umap")
        with self.assertRaisesRegex(am.InputError, "obsm/X_umap: does not exist"):
            ann.train(adata, "day", "X_umap")
        with self.assertRaisesRegex(am.InputError, "give basis"):
            ann.velocity(adata, flow.model())


if __name__ == "__main__":
    unittest.main()
