//! A host program on the virtual GPU, through the driver interface it loads: `libcuda.so` on the
//! library path.
//!
//! Each test runs itself again in a child process whose library path leads to the virtual GPU.

mod common;

use std::process::Command;
use std::sync::Arc;

use common::folder_with_driver;
use cudarc::driver::{
    CudaContext, CudaFunction, CudaStream, DevicePtr as _, DevicePtrMut, LaunchConfig, PushKernelArg, sys,
};
use cudarc::nvrtc::Ptx;

const PTX: &str = r#".version 8.0
.target sm_80
.address_size 64
.file 1 "twice.cu"
.visible .entry twice(.param .u64 p_x, .param .u32 p_n)
{
.reg .pred %p<2>; .reg .b32 %r<8>; .reg .b64 %rd<4>;
.loc 1 3 0
ld.param.u64 %rd1, [p_x];
ld.param.u32 %r1, [p_n];
mov.u32 %r2, %tid.x; mov.u32 %r3, %ctaid.x; mov.u32 %r4, %ntid.x;
mad.lo.u32 %r2, %r3, %r4, %r2;
setp.ge.u32 %p1, %r2, %r1;
@%p1 bra $end;
mul.wide.u32 %rd2, %r2, 4;
add.s64 %rd2, %rd1, %rd2;
ld.global.u32 %r5, [%rd2];
add.u32 %r5, %r5, %r5;
st.global.u32 [%rd2], %r5;
$end:
ret;
}
"#;

/// A kernel that writes `sm` of its target into the first word, which a block of three warpgroups
/// takes by way of the last word of its shared memory. On sm_90 the warpgroups pass registers on.
fn kind(target: &str, sm: u32) -> String {
    let shared = if sm == 90 { 227 << 10 } else { 163 << 10 };
    let shares = "@%p1 bra $few;
setmaxnreg.inc.sync.aligned.u32 232;
bra $told;
$few:
setmaxnreg.dec.sync.aligned.u32 40;
$told:";
    format!(
        ".version 8.0
.target {target}
.address_size 64
.extern .shared .align 16 .b8 memory[];
.visible .entry kind(.param .u64 p_x) .maxntid 384, 1, 1 .minnctapersm 1
{{
.reg .pred %p<3>; .reg .b32 %r<4>; .reg .b64 %rd<2>;
mov.u32 %r1, %tid.x;
setp.lt.u32 %p1, %r1, 128;
{}
setp.ne.u32 %p2, %r1, 383;
@%p2 ret;
ld.param.u64 %rd1, [p_x];
mov.u32 %r2, {sm};
st.shared.u32 [memory+{last}], %r2;
ld.shared.u32 %r3, [memory+{last}];
st.global.u32 [%rd1], %r3;
ret;
}}
",
        if sm == 90 { shares } else { "" },
        last = shared - 4,
    )
}

/// A fat binary of these texts for these architectures; `specific` ones run on their own alone.
fn fat_binary(parts: &[(u32, bool, String)]) -> Vec<u8> {
    let word = |value: u32| value.to_le_bytes().to_vec();
    let mut content = Vec::new();
    for (sm, specific, text) in parts {
        let size = text.len() as u32 + 1;
        let words = [1, 64, size, 0, 0, 0, 0, *sm, 0, 0, 0x11 | u32::from(*specific) << 20, 0, 0, 0, 0, 0];
        content.extend(words.into_iter().flat_map(word).chain(text.bytes()).chain([0]));
    }
    let head = [0xba55_ed50, 0x0010_0001, content.len() as u32, 0];
    head.into_iter().flat_map(word).chain(content).collect()
}

/// Runs test `name` again in a child process for which `libcuda.so` is the virtual GPU. Returns its
/// standard error, or `None` in the child.
fn on_the_virtual_gpu(name: &str, seed: u64) -> Option<String> {
    on_the_virtual_gpu_with(name, "libcuda.so", &[("VGPU_SEED", &seed.to_string())])
}

/// The same with another name of the library and other settings.
fn on_the_virtual_gpu_with(name: &str, library_name: &str, settings: &[(&str, &str)]) -> Option<String> {
    if std::env::var_os("VGPU_CHILD").is_some() {
        return None;
    }
    let program = std::env::current_exe().expect("the test's own path");
    let folder = folder_with_driver(library_name);
    let output = Command::new(program)
        .args(["--exact", name, "--nocapture"])
        .env("VGPU_CHILD", "1")
        .envs(settings.iter().copied())
        .env("VGPU_COUNTERS", folder.path().join("counters.json"))
        .env("LD_LIBRARY_PATH", folder.path())
        .output()
        .expect("runs");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}{errors}", String::from_utf8_lossy(&output.stdout));
    let counters = std::fs::read_to_string(folder.path().join("counters.json")).unwrap_or_default();
    Some(errors + &counters)
}

fn doubling_kernel() -> (Arc<CudaContext>, CudaFunction) {
    let context = CudaContext::new(0).expect("a device");
    let module = context.load_module(Ptx::from_src(PTX)).expect("a module");
    let function = module.load_function("twice").expect("the kernel");
    (context, function)
}

fn launch(stream: &Arc<CudaStream>, function: &CudaFunction, x: &mut cudarc::driver::CudaSlice<u32>, n: u32) {
    let mut builder = stream.launch_builder(function);
    builder.arg(x).arg(&n);
    // SAFETY: the kernel takes a pointer and a number; the tests choose which accesses are valid.
    unsafe { builder.launch(LaunchConfig { grid_dim: (4, 1, 1), block_dim: (64, 1, 1), shared_mem_bytes: 0 }) }
        .expect("launches");
}

#[test]
fn programs_run_unmodified() {
    let name = "programs_run_unmodified";
    if std::env::var_os("VGPU_CHILD").is_none() {
        on_the_virtual_gpu_with(name, "libcuda.so.1", &[]).expect("its output");
    }
    if let Some(output) = on_the_virtual_gpu(name, 3) {
        assert!(output.contains("\"kernel\":\"twice\"") && output.contains("\"written_sectors\":25"), "{output}");
        return;
    }
    let (context, function) = doubling_kernel();
    assert!(context.name().expect("a name").contains("Virtual"));
    let (free, total) = context.mem_get_info().expect("sizes");
    assert!(free <= total && total == context.total_mem().expect("a size"));
    assert_eq!(context.compute_capability().expect("a capability"), (8, 0));
    let stream = context.default_stream();
    let numbers: Vec<u32> = (0..200).collect();
    let mut x = stream.clone_htod(&numbers).expect("a copy");
    launch(&stream, &function, &mut x, 200);
    let doubled = stream.clone_dtoh(&x).expect("a copy");
    assert_eq!(doubled, numbers.iter().map(|n| 2 * n).collect::<Vec<_>>());
}

#[test]
fn faults_of_kernels_name_their_place_and_break_the_device() {
    let name = "faults_of_kernels_name_their_place_and_break_the_device";
    if let Some(output) = on_the_virtual_gpu(name, 0) {
        for part in ["vgpu: twice: out of bounds", "twice.cu:3", "block 3, thread"] {
            assert!(output.contains(part), "{part:?} is not in: {output}");
        }
        return;
    }
    let (context, function) = doubling_kernel();
    let stream = context.default_stream();
    let mut x = stream.clone_htod(&vec![1u32; 200]).expect("a copy");
    launch(&stream, &function, &mut x, 201);
    assert_eq!(stream.synchronize().expect_err("fails").0, sys::CUresult::CUDA_ERROR_LAUNCH_FAILED);
    assert!(stream.clone_htod(&[1u32]).and_then(|_| stream.synchronize()).is_err(), "the device goes on");
}

/// Two streams without an event between them run in any order; with an event, only in one.
#[test]
fn streams_are_ordered_by_events_alone() {
    let name = "streams_are_ordered_by_events_alone";
    if std::env::var_os("VGPU_CHILD").is_none() {
        let unordered: Vec<bool> = (0..12)
            .map(|seed| on_the_virtual_gpu(name, seed).expect("its output").contains("without: 2 of 2"))
            .collect();
        assert!(unordered.contains(&true) && unordered.contains(&false), "{unordered:?}");
        return;
    }
    let (context, function) = doubling_kernel();
    // The library's own events would order everything. SAFETY: the test outlives the data it shares
    // between streams.
    unsafe { context.disable_event_tracking() };
    for with_event in [true, false] {
        let (first, second) = (context.new_stream().expect("a stream"), context.new_stream().expect("a stream"));
        let mut x = first.clone_htod(&vec![1u32; 64]).expect("a copy");
        first.synchronize().expect("synchronizes");
        launch(&first, &function, &mut x, 64);
        if with_event {
            second.wait(&first.record_event(None).expect("an event")).expect("waits");
        }
        let seen = second.clone_dtoh(&x).expect("a copy")[0];
        first.synchronize().expect("synchronizes");
        assert!(!with_event || seen == 2);
        eprintln!("{}: {seen} of 2", if with_event { "with" } else { "without" });
    }
}

#[test]
fn captured_work_is_launched_again() {
    if on_the_virtual_gpu("captured_work_is_launched_again", 1).is_some() {
        return;
    }
    let (context, function) = doubling_kernel();
    // The library's own events are outside the capture. SAFETY: all work is in one stream.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream().expect("a stream");
    let mut x = stream.clone_htod(&vec![3u32; 64]).expect("a copy");
    stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).expect("captures");
    launch(&stream, &function, &mut x, 64);
    launch(&stream, &function, &mut x, 64);
    let flags = sys::CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = stream.end_capture(flags).expect("captured").expect("a graph");
    (0..3).for_each(|_| graph.launch().expect("launches"));
    assert_eq!(stream.clone_dtoh(&x).expect("a copy"), vec![3 << 6; 64]);
}

/// A cooperative launch has as many blocks as the occupancy says, and no more.
#[test]
fn cooperative_launches_fit_the_device() {
    if on_the_virtual_gpu("cooperative_launches_fit_the_device", 0).is_some() {
        return;
    }
    let (context, function) = doubling_kernel();
    let attribute = |attribute| context.attribute(attribute).expect("an attribute");
    assert_eq!(attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH), 1);
    let multiprocessors = attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT) as u32;
    let blocks = function.occupancy_max_active_blocks_per_multiprocessor(64, 0, None).expect("an occupancy");
    let (fit, n) = (multiprocessors * blocks, multiprocessors * blocks * 64);
    let stream = context.default_stream();
    let mut x = stream.clone_htod(&vec![3u32; n as usize]).expect("a copy");
    let mut launch = |n_blocks: u32| {
        let config = LaunchConfig { grid_dim: (n_blocks, 1, 1), block_dim: (64, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the kernel takes a pointer and a number of elements, which exist.
        unsafe { stream.launch_builder(&function).arg(&mut x).arg(&n).launch_cooperative(config) }.map(|_| ())
    };
    let refused = launch(fit + 1).expect_err("does not fit");
    assert_eq!(refused.0, sys::CUresult::CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
    launch(fit).expect("fits");
    assert_eq!(stream.clone_dtoh(&x).expect("a copy"), vec![6; n as usize]);
}

/// The file's kernel triples, the program's own doubles.
#[test]
fn modules_are_overridden_by_their_first_entry() {
    let name = "modules_are_overridden_by_their_first_entry";
    if std::env::var_os("VGPU_CHILD").is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let (other, triple) = (folder.path().join("other.ptx"), folder.path().join("triple.ptx"));
        std::fs::write(&other, PTX.replace("entry twice", "entry other")).expect("written");
        std::fs::write(&triple, PTX.replace("add.u32 %r5, %r5, %r5;", "mul.lo.u32 %r5, %r5, 3;")).expect("written");
        let paths = format!("{}:{}", other.display(), triple.display());
        let output = on_the_virtual_gpu_with(name, "libcuda.so", &[("VGPU_OVERRIDE", &paths)]).expect("its output");
        assert!(output.contains("made 21 of 7"), "{output}");
        let output = on_the_virtual_gpu(name, 0).expect("its output");
        assert!(output.contains("made 14 of 7"), "{output}");
        let missing = [("VGPU_OVERRIDE", "/nowhere.ptx")];
        let output = on_the_virtual_gpu_with(name, "libcuda.so", &missing).expect("its output");
        assert!(output.contains("/nowhere.ptx") && output.contains("no module"), "{output}");
        return;
    }
    let context = CudaContext::new(0).expect("a device");
    let Ok(module) = context.load_module(Ptx::from_src(PTX)) else {
        eprintln!("no module");
        return;
    };
    let function = module.load_function("twice").expect("the kernel");
    let stream = context.default_stream();
    let mut x = stream.clone_htod(&[7u32; 64]).expect("a copy");
    launch(&stream, &function, &mut x, 64);
    eprintln!("made {} of 7", stream.clone_dtoh(&x).expect("a copy")[0]);
}

/// Of one image, each card runs the PTX that is for it, with all of its shared memory.
#[test]
fn cards_run_the_ptx_that_is_for_them() {
    use sys::CUfunction_attribute::*;
    let name = "cards_run_the_ptx_that_is_for_them";
    if std::env::var_os("VGPU_CHILD").is_none() {
        for (cards, output) in [("8.0", "[80]"), ("9.0", "[90]"), ("8.0,9.0", "[80, 90]"), ("9.0,8.0", "[90, 80]")] {
            let said = on_the_virtual_gpu_with(name, "libcuda.so", &[("VGPU_CAPABILITY", cards)]).expect("its output");
            assert!(said.contains(&format!("ran {output}")), "{cards}: {said}");
        }
        return;
    }
    let image = fat_binary(&[(80, false, kind("sm_80", 80)), (90, true, kind("sm_90a", 90))]);
    let n = CudaContext::device_count().expect("a number") as usize;
    let contexts: Vec<_> = (0..n).map(|ordinal| CudaContext::new(ordinal).expect("a device")).collect();
    assert!(CudaContext::new(n).is_err(), "one device more than there are");
    let run = |context: &Arc<CudaContext>| {
        let (major, minor) = context.compute_capability().expect("a capability");
        let sm = major * 10 + minor;
        assert!(context.name().expect("a name").contains(&format!("sm_{sm}")));
        let opt_in = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let shared = context.attribute(opt_in).expect("an attribute");
        assert_eq!(shared, if sm == 90 { 232_448 } else { 166_912 });
        let module = context.load_module(Ptx::from_binary(image.clone())).expect("a module");
        let function = module.load_function("kind").expect("the kernel");
        let attribute = |attribute| function.get_attribute(attribute).expect("an attribute");
        assert_eq!(attribute(CU_FUNC_ATTRIBUTE_PTX_VERSION), sm);
        assert_eq!(attribute(CU_FUNC_ATTRIBUTE_BINARY_VERSION), sm);
        assert_eq!(attribute(CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK), 384);
        // What launch bounds leave of 65,536 is shared among warpgroups.
        assert_eq!(attribute(CU_FUNC_ATTRIBUTE_NUM_REGS), if sm == 90 { 168 } else { 128 });
        let dynamic = CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        assert!(function.set_attribute(dynamic, shared + 1).is_err(), "more than a block has");
        function.set_attribute(dynamic, shared).expect("all of it");
        assert_eq!(attribute(dynamic), shared);
        assert_eq!(function.occupancy_max_active_blocks_per_multiprocessor(384, shared as usize, None), Ok(1));
        let stream = context.default_stream();
        let mut x = stream.alloc_zeros::<u32>(1).expect("zeros");
        let config = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (384, 1, 1), shared_mem_bytes: shared as u32 };
        // SAFETY: the kernel takes a pointer to a word.
        unsafe { stream.launch_builder(&function).arg(&mut x).launch(config) }.expect("launches");
        stream.clone_dtoh(&x).expect("a copy")[0]
    };
    eprintln!("ran {:?}", contexts.iter().map(run).collect::<Vec<_>>());
}

/// A pointer of one device means nothing to another.
#[test]
fn devices_have_no_memory_in_common() {
    let name = "devices_have_no_memory_in_common";
    if let Some(output) = on_the_virtual_gpu_with(name, "libcuda.so", &[("VGPU_CAPABILITY", "8.0,9.0")]) {
        assert!(output.contains("vgpu: twice: out of bounds"), "{output}");
        return;
    }
    let [first, second] = [0, 1].map(|ordinal| CudaContext::new(ordinal).expect("a device"));
    let mut x = first.default_stream().clone_htod(&[1u32; 64]).expect("a copy");
    let function = second.load_module(Ptx::from_src(PTX)).expect("a module").load_function("twice").expect("it");
    let stream = second.default_stream();
    second.bind_to_thread().expect("binds");
    let (address, _) = x.device_ptr_mut(&first.default_stream());
    // SAFETY: the test is of the report.
    let launched =
        unsafe { stream.launch_builder(&function).arg(&address).arg(&64u32).launch(LaunchConfig::for_num_elems(64)) };
    assert!(launched.and_then(|_| stream.synchronize()).is_err());
    assert_eq!(first.default_stream().clone_dtoh(&x).expect("the other goes on"), vec![1; 64]);
}

#[test]
fn cards_that_are_not_known_are_no_devices() {
    let name = "cards_that_are_not_known_are_no_devices";
    if let Some(output) = on_the_virtual_gpu_with(name, "libcuda.so", &[("VGPU_CAPABILITY", "9.0,7.0")]) {
        assert!(output.contains("there is no card \"7.0\": use 8.0, 9.0"), "{output}");
        return;
    }
    assert!(CudaContext::new(0).is_err());
}

#[test]
fn allocating_beyond_the_device_memory_fails() {
    let name = "allocating_beyond_the_device_memory_fails";
    if on_the_virtual_gpu_with(name, "libcuda.so", &[("VGPU_MEMORY", "1000000")]).is_some() {
        return;
    }
    let context = CudaContext::new(0).expect("a device");
    let stream = context.new_stream().expect("a stream");
    let allocate = |bytes: usize| {
        // SAFETY: nothing reads it.
        unsafe { stream.alloc::<u8>(bytes) }
    };
    let half = allocate(600_000).expect("fits");
    let refused = allocate(600_000).expect_err("does not fit");
    assert_eq!(refused.0, sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY);
    // Memory freed in stream order can be allocated again.
    drop(half);
    allocate(900_000).expect("fits");
}

/// Copies and fills are recorded; page-locked memory is read when the graph runs; a second stream
/// takes part between events.
#[test]
fn captures_hold_copies_and_streams_that_join() {
    let name = "captures_hold_copies_and_streams_that_join";
    if std::env::var_os("VGPU_CHILD").is_none() {
        (0..8).for_each(|seed| drop(on_the_virtual_gpu(name, seed)));
        return;
    }
    let (context, function) = doubling_kernel();
    // SAFETY: the test outlives the data it shares between streams.
    unsafe { context.disable_event_tracking() };
    let (first, second) = (context.new_stream().expect("a stream"), context.new_stream().expect("a stream"));
    let (mut x, mut y) = (first.alloc_zeros::<u32>(64).expect("zeros"), first.alloc_zeros::<u32>(64).expect("zeros"));
    // SAFETY: filled below, before the graph runs.
    let mut host = unsafe { context.alloc_pinned::<u32>(64) }.expect("memory");
    first.synchronize().expect("synchronizes");
    first.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).expect("captures");
    first.memcpy_htod(&host, &mut x).expect("a copy");
    second.wait(&first.record_event(None).expect("an event")).expect("joins");
    launch(&second, &function, &mut x, 64);
    let done = second.record_event(None).expect("an event");
    assert_eq!(done.synchronize().expect_err("has no time").0, sys::CUresult::CUDA_ERROR_CAPTURED_EVENT);
    first.memset_zeros(&mut y).expect("a fill");
    first.wait(&done).expect("waits");
    first.memcpy_dtod(&x, &mut y).expect("a copy");
    let flags = sys::CUgraphInstantiate_flags(0);
    let graph = first.end_capture(flags).expect("captured").expect("a graph");
    for value in [5, 6] {
        host.as_mut_slice().expect("the memory").fill(value);
        graph.launch().expect("launches");
        assert_eq!(first.clone_dtoh(&y).expect("a copy"), vec![2 * value; 64]);
    }
}

#[test]
fn captures_end_with_what_they_cannot_hold() {
    use sys::CUresult::*;
    let name = "captures_end_with_what_they_cannot_hold";
    if on_the_virtual_gpu(name, 0).is_some() {
        return;
    }
    let (context, function) = doubling_kernel();
    // SAFETY: the test outlives the data it shares between streams.
    unsafe { context.disable_event_tracking() };
    let (first, second) = (context.new_stream().expect("a stream"), context.new_stream().expect("a stream"));
    let mut x = first.clone_htod(&[1u32; 64]).expect("a copy");
    let outside = second.record_event(None).expect("an event");
    let flags = || sys::CUgraphInstantiate_flags(0);
    let begin = || {
        first.synchronize().expect("synchronizes");
        first.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).expect("captures");
    };
    let lost = |error: sys::CUresult, expected: sys::CUresult| {
        assert_eq!(error, expected);
        assert_eq!(first.end_capture(flags()).err().expect("is lost").0, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    };
    begin();
    lost(first.synchronize().expect_err("waits").0, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    begin();
    lost(context.synchronize().expect_err("waits").0, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    begin();
    lost(first.clone_dtoh(&x).expect_err("copies to memory that moves").0, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    begin();
    lost(first.alloc_zeros::<u32>(4).expect_err("allocates").0, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    begin();
    lost(first.wait(&outside).expect_err("is not recorded").0, CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    // Work of another stream that nothing waits for.
    begin();
    second.wait(&first.record_event(None).expect("an event")).expect("joins");
    launch(&second, &function, &mut x, 64);
    assert_eq!(first.end_capture(flags()).err().expect("is lost").0, CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
    // The streams can be used afterwards.
    launch(&second, &function, &mut x, 64);
    assert_eq!(second.clone_dtoh(&x).expect("a copy"), vec![2; 64]);
}

#[test]
fn memory_of_the_host_outlives_its_copies() {
    let name = "memory_of_the_host_outlives_its_copies";
    if let Some(output) = on_the_virtual_gpu(name, 0) {
        assert!(output.contains("given back while a queued copy needs it"), "{output}");
        return;
    }
    let context = CudaContext::new(0).expect("a device");
    // SAFETY: the test deliberately works without event tracking.
    unsafe { context.disable_event_tracking() };
    let stream = context.new_stream().expect("a stream");
    let mut x = stream.alloc_zeros::<u32>(64).expect("zeros");
    // SAFETY: its content does not matter.
    let host = unsafe { context.alloc_pinned::<u32>(64) }.expect("memory");
    stream.memcpy_htod(&host, &mut x).expect("a copy");
    drop(host);
    assert!(stream.synchronize().is_err());
}

/// Memory of one device is none of another, and a failure breaks its own alone.
#[test]
fn devices_share_nothing() {
    let name = "devices_share_nothing";
    if let Some(output) = on_the_virtual_gpu_with(name, "libcuda.so", &[("VGPU_DEVICES", "2")]) {
        assert!(
            output.contains("vgpu: copy to the host: 256 bytes at") && output.contains("no allocation"),
            "{output}"
        );
        return;
    }
    assert_eq!(CudaContext::device_count().expect("a number"), 2);
    assert_eq!(CudaContext::new(2).expect_err("there are two").0, sys::CUresult::CUDA_ERROR_INVALID_DEVICE);
    let (second, function) = {
        let context = CudaContext::new(1).expect("a device");
        let module = context.load_module(Ptx::from_src(PTX)).expect("a module");
        let function = module.load_function("twice").expect("the kernel");
        (context, function)
    };
    let first = CudaContext::new(0).expect("a device");
    assert_ne!(first.uuid().expect("an id").bytes, second.uuid().expect("an id").bytes);
    let (on_first, on_second) = (first.default_stream(), second.default_stream());
    let x = on_first.clone_htod(&[3u32; 64]).expect("a copy");
    let mut y = on_second.clone_htod(&[5u32; 64]).expect("a copy");
    launch(&on_second, &function, &mut y, 64);
    assert_eq!(on_second.clone_dtoh(&y).expect("a copy"), [10; 64]);
    let address = x.device_ptr(&on_first).0;
    second.bind_to_thread().expect("the second device");
    let mut host = [0u32; 64];
    // SAFETY: the bytes are there, and the address is none of the device's.
    unsafe { cudarc::driver::result::memcpy_dtoh_sync(&mut host, address) }.expect_err("is not there");
    assert_eq!(on_first.clone_dtoh(&x).expect("a copy"), [3; 64]);
    on_second.clone_dtoh(&y).expect_err("is broken");
}
