//! All kernels, with their names in `kernels/*.cu`. The build script fails if those that nvcc made
//! are others.

kernels! {
    once {
        GatherGradient = "gather_gradient",
        AddPartials = "add_partials",
        AddSlices = "add_slices",
        FinishStep = "finish_step",
        RenewDensity = "renew_density",
        SweepMiddleBf16 = "sweep_middle_bf16",
        SweepMiddleF16 = "sweep_middle_f16",
        SweepWgmmaBf16 = "sweep_wgmma_bf16",
        SweepWgmmaF16 = "sweep_wgmma_f16",
        IntegrateWgmmaBf16 = "integrate_wgmma_bf16",
        IntegrateWgmmaF16 = "integrate_wgmma_f16",
        ChangeUnits = "change_units",
    }
    for_each_precision {
        Draw = "draw",
        DrawBend = "draw_bend",
        BendForward = "bend_forward",
        BendBackward = "bend_backward",
        Sweep = "sweep",
        SweepDiffusive = "sweep_diffusive",
        SweepBroad = "sweep_broad",
        SweepBroadDiffusive = "sweep_broad_diffusive",
        SweepLow = "sweep_low",
        SweepLowDiffusive = "sweep_low_diffusive",
        SweepNarrow = "sweep_narrow",
        SweepNarrowDiffusive = "sweep_narrow_diffusive",
        WeightGrad = "weight_grad",
        Update = "update",
        Integrate = "integrate",
        IntegrateDensity = "integrate_density",
        IntegrateBroad = "integrate_broad",
        IntegrateBroadDensity = "integrate_broad_density",
        IntegrateNarrow = "integrate_narrow",
        IntegrateNarrowDensity = "integrate_narrow_density",
        PlaceRows = "place_rows",
    }
}
