//! The virtual NCCL under host programs of 1 to 8 ranks, as threads and as processes: what it
//! computes, and every fault that it reports.

mod common;

use std::time::Duration;

use common::{Ended, FLOAT, Rank, Ranks, Status, as_rank, at, at_mut, ok, run};
use cudarc::driver::{CudaSlice, LaunchConfig, PushKernelArg, sys as driver};
use cudarc::nccl::{result, sys};
use cudarc::nvrtc::Ptx;

/// Runs `name` with 1, 2, 4 and 8 ranks of both kinds; all must end well.
fn for_all_ranks(name: &str, work: impl Fn(Rank) + Sync) {
    if std::env::var_os("VNCCL_RANKS").is_some() {
        return as_rank(work);
    }
    for ranks in [Ranks::Threads, Ranks::Processes] {
        for n in [1, 2, 4, 8] {
            let seed = (n + 1).to_string();
            let ended = run(name, ranks, n, &[("VGPU_SEED", &seed)]).expect("ended");
            assert!(ended.children.iter().all(|(_, well)| *well), "{ranks:?}, {n}: {}", ended.said());
        }
    }
}

/// Runs `name` with `n` ranks of both kinds, whose work contains a fault. Each of `texts` must be
/// said, and all must have ended in time.
fn with_fault(name: &str, n: usize, texts: &[&str], work: impl Fn(Rank) + Sync) {
    if std::env::var_os("VNCCL_RANKS").is_some() {
        return as_rank(work);
    }
    for ranks in [Ranks::Threads, Ranks::Processes] {
        check(&run(name, ranks, n, &[("VNCCL_TIMEOUT", "1")]).expect("ended"), texts);
    }
}

fn check(ended: &Ended, texts: &[&str]) {
    let said = ended.said();
    for text in texts {
        assert!(said.contains(text), "{text:?} is not in: {said}");
    }
    assert!(ended.children.iter().all(|(_, well)| *well), "{said}");
    assert!(ended.took < Duration::from_secs(30), "{:?}: {said}", ended.took);
}

/// Values that tell rank and place.
fn own(rank: usize, count: usize) -> Vec<f32> {
    (0..count).map(|i| (1000 * rank + i) as f32).collect()
}

fn destroy(communicator: sys::ncclComm_t) -> Result<(), Status> {
    // SAFETY: any handle may be passed.
    ok(unsafe { sys::ncclCommDestroy(communicator) })
}

/// All to all: slice r of `from` goes to rank r.
fn exchange(rank: &Rank, communicator: sys::ncclComm_t, from: &CudaSlice<f32>, to: &mut CudaSlice<f32>) {
    let slice = from.len() / rank.n;
    let (from, to) = (at(from, &rank.stream), at_mut(to, &rank.stream));
    result::group_start().expect("starts");
    for peer in 0..rank.n {
        let offset = (4 * slice * peer) as u64;
        // SAFETY: both buffers hold a slice for each rank.
        unsafe {
            result::send((from + offset) as _, slice, FLOAT, peer as i32, communicator, rank.cu_stream())
                .expect("is sent");
            result::recv((to + offset) as _, slice, FLOAT, peer as i32, communicator, rank.cu_stream())
                .expect("is received");
        }
    }
    result::group_end().expect("ends");
}

#[test]
fn every_call_does_what_nccl_says() {
    for_all_ranks("every_call_does_what_nccl_says", |rank| {
        let (n, count) = (rank.n, 5);
        let communicator = rank.join();
        let everything: Vec<f32> = (0..n).flat_map(|other| own(other, count)).collect();
        let mine = rank.buffer(&own(rank.rank, count));
        // Gather, into another buffer and in place.
        let mut all = rank.stream.alloc_zeros::<f32>(n * count).expect("zeros");
        ok(rank.all_gather(communicator, &mine, &mut all)).expect("gathers");
        assert_eq!(rank.values(&all), everything);
        let mut in_place = vec![0.0; n * count];
        in_place[rank.rank * count..(rank.rank + 1) * count].copy_from_slice(&own(rank.rank, count));
        let mut in_place = rank.buffer(&in_place);
        let to = at_mut(&mut in_place, &rank.stream);
        let from = to + (4 * rank.rank * count) as u64;
        // SAFETY: the slice of this rank lies in the buffer of all.
        unsafe { result::all_gather(from as _, to as _, count, FLOAT, communicator, rank.cu_stream()) }
            .expect("gathers");
        assert_eq!(rank.values(&in_place), everything);
        // Sum, in place.
        let mut total = rank.buffer(&own(rank.rank, count));
        let sum = sys::ncclRedOp_t::ncclSum;
        let here = at_mut(&mut total, &rank.stream);
        // SAFETY: the buffer holds `count` numbers.
        ok(unsafe { sys::ncclAllReduce(here as _, here as _, count, FLOAT, sum, communicator, rank.cu_stream()) })
            .expect("adds");
        let expected: Vec<f32> = (0..count).map(|i| (0..n).map(|other| (1000 * other + i) as f32).sum()).collect();
        assert_eq!(rank.values(&total), expected);
        // Broadcast from the last rank.
        let root = n - 1;
        let mut word = rank.buffer(&own(rank.rank, count));
        let here = at_mut(&mut word, &rank.stream);
        // SAFETY: as above.
        ok(unsafe {
            sys::ncclBroadcast(here as _, here as _, count, FLOAT, root as i32, communicator, rank.cu_stream())
        })
        .expect("broadcasts");
        assert_eq!(rank.values(&word), own(root, count));
        // All to all.
        let from = rank.buffer(&own(rank.rank, n * 3));
        let mut to = rank.stream.alloc_zeros::<f32>(n * 3).expect("zeros");
        exchange(&rank, communicator, &from, &mut to);
        let expected: Vec<f32> =
            (0..n).flat_map(|other| own(other, n * 3)[3 * rank.rank..3 * rank.rank + 3].to_vec()).collect();
        assert_eq!(rank.values(&to), expected);
        let (mut ranks, mut own) = (0, 0);
        // SAFETY: the pointers are valid.
        ok(unsafe { sys::ncclCommCount(communicator, &mut ranks) }).expect("a count");
        // SAFETY: as above.
        ok(unsafe { sys::ncclCommUserRank(communicator, &mut own) }).expect("a rank");
        assert_eq!((ranks as usize, own as usize), (n, rank.rank));
        destroy(communicator).expect("is destroyed");
    });
}

/// A graph is launched again and again, with what is in its buffers then.
#[test]
fn captured_calls_run_with_each_launch() {
    for_all_ranks("captured_calls_run_with_each_launch", |rank| {
        let communicator = rank.join();
        let mut total = rank.buffer(&[1.0, rank.rank as f32]);
        let here = at_mut(&mut total, &rank.stream);
        let mode = driver::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        rank.stream.begin_capture(mode).expect("captures");
        let sum = sys::ncclRedOp_t::ncclSum;
        // SAFETY: the buffer holds two numbers, and outlives the graph.
        ok(unsafe { sys::ncclAllReduce(here as _, here as _, 2, FLOAT, sum, communicator, rank.cu_stream()) })
            .expect("adds");
        let graph = rank.stream.end_capture(driver::CUgraphInstantiate_flags(0)).expect("captured").expect("a graph");
        (0..3).for_each(|_| graph.launch().expect("launches"));
        let n = rank.n as f32;
        assert_eq!(rank.values(&total), [n.powi(3), (0..rank.n).sum::<usize>() as f32 * n * n]);
        destroy(communicator).expect("is destroyed");
    });
}

/// A host that looks at an event from time to time, and at the communicator.
#[test]
fn a_host_that_only_asks_makes_progress() {
    for_all_ranks("a_host_that_only_asks_makes_progress", |rank| {
        let communicator = rank.join();
        let mine = rank.buffer(&own(rank.rank, 2));
        let mut all = rank.stream.alloc_zeros::<f32>(2 * rank.n).expect("zeros");
        ok(rank.all_gather(communicator, &mine, &mut all)).expect("gathers");
        let end = rank.stream.record_event(None).expect("an event");
        while !end.is_complete() {
            let mut status = Status::ncclInternalError;
            // SAFETY: the pointer is valid.
            ok(unsafe { sys::ncclCommGetAsyncError(communicator, &mut status) }).expect("a status");
            assert_eq!(status, Status::ncclSuccess);
            std::thread::sleep(Duration::from_micros(100));
        }
        destroy(communicator).expect("is destroyed");
    });
}

/// Makes the call of `work`. It must fail, or the stream in which it is.
fn fails(rank: &Rank, work: impl FnOnce(sys::ncclComm_t) -> Status) {
    let communicator = rank.join();
    if work(communicator) == Status::ncclSuccess {
        rank.stream.synchronize().expect_err("fails");
    }
    // The other ranks shall have seen it before this one is gone.
    std::thread::sleep(Duration::from_millis(200));
}

#[test]
fn counts_that_differ() {
    let texts = ["rank 0 calls ncclAllGather of 4 f32, rank 1 ncclAllGather of 5 f32", "collective 1 differs"];
    with_fault("counts_that_differ", 2, &texts, |rank| {
        let count = 4 + rank.rank;
        let mine = rank.buffer(&own(rank.rank, count));
        let mut all = rank.buffer(&vec![0.0; 2 * count]);
        fails(&rank, |communicator| rank.all_gather(communicator, &mine, &mut all));
    });
}

#[test]
fn types_roots_and_calls_that_differ() {
    let name = "types_roots_and_calls_that_differ";
    for (fault, texts) in [
        ("types", ["rank 0 calls ncclBroadcast of 2 f32 from rank 0, rank 1 ncclBroadcast of 2 u32", "collective 1"]),
        ("roots", ["rank 0 calls ncclBroadcast of 2 f32 from rank 0, rank 1", "of 2 f32 from rank 1"]),
        ("order", ["rank 0 calls ncclAllGather of 2 f32, rank 1 ncclBroadcast of 2 f32 from rank 0", "collective 1"]),
    ] {
        if let Ok(fault) = std::env::var("VNCCL_FAULT") {
            return as_rank(|rank| {
                let odd = rank.rank == 1;
                let mine = rank.buffer(&own(rank.rank, 2));
                let mut all = rank.buffer(&[0.0; 4]);
                fails(&rank, |communicator| {
                    if fault == "order" && !odd {
                        return rank.all_gather(communicator, &mine, &mut all);
                    }
                    let element = if fault == "types" && odd { sys::ncclDataType_t::ncclUint32 } else { FLOAT };
                    let root = i32::from(fault == "roots" && odd);
                    let (from, to) = (at(&mine, &rank.stream), at_mut(&mut all, &rank.stream));
                    let stream = rank.cu_stream();
                    // SAFETY: both buffers hold two numbers.
                    unsafe { sys::ncclBroadcast(from as _, to as _, 2, element, root, communicator, stream) }
                });
            });
        }
        for ranks in [Ranks::Threads, Ranks::Processes] {
            check(&run(name, ranks, 2, &[("VNCCL_FAULT", fault)]).expect("ended"), &texts);
        }
    }
}

#[test]
fn sends_that_wait_for_each_other() {
    let texts = ["ranks wait for each other for ever", "rank 1 waits in call 1, ncclSend of 2 f32 to rank 0"];
    with_fault("sends_that_wait_for_each_other", 2, &texts, |rank| {
        let mine = rank.buffer(&own(rank.rank, 2));
        fails(&rank, |communicator| {
            let peer = 1 - rank.rank as i32;
            let from = at(&mine, &rank.stream);
            // SAFETY: the buffer holds two numbers.
            unsafe { sys::ncclSend(from as _, 2, FLOAT, peer, communicator, rank.cu_stream()) }
        });
    });
}

#[test]
fn a_rank_that_does_not_come() {
    let texts = ["a call has waited for 1 s", "rank 2 has called nothing", "rank 0 waits in call 1, ncclAllGather"];
    with_fault("a_rank_that_does_not_come", 3, &texts, |rank| {
        let mine = rank.buffer(&own(rank.rank, 2));
        let mut all = rank.buffer(&[0.0; 6]);
        if rank.rank == 2 {
            let communicator = rank.join();
            let mut status = Status::ncclSuccess;
            while status == Status::ncclSuccess {
                std::thread::sleep(Duration::from_millis(20));
                // SAFETY: the pointer is valid.
                ok(unsafe { sys::ncclCommGetAsyncError(communicator, &mut status) }).expect("a status");
            }
            assert_eq!(status, Status::ncclRemoteError);
            return;
        }
        fails(&rank, |communicator| rank.all_gather(communicator, &mine, &mut all));
    });
}

#[test]
fn a_rank_that_never_joins() {
    let texts = ["of 3 ranks these have not joined within 1 s: 2"];
    with_fault("a_rank_that_never_joins", 3, &texts, |rank| {
        let id = rank.id();
        if rank.rank < 2 {
            assert_eq!(rank.try_join(3, id), Err(Status::ncclRemoteError));
        } else {
            std::thread::sleep(Duration::from_millis(1500));
        }
    });
}

/// As a process only: a thread that ends leaves its communicator behind.
#[test]
fn a_process_that_ends() {
    let name = "a_process_that_ends";
    if std::env::var_os("VNCCL_RANKS").is_some() {
        return as_rank(|rank| {
            let mine = rank.buffer(&own(rank.rank, 2));
            let mut all = rank.buffer(&[0.0; 6]);
            fails(&rank, |communicator| {
                if rank.rank == 1 {
                    eprintln!("process {} ends", std::process::id());
                    std::process::exit(0);
                }
                rank.all_gather(communicator, &mine, &mut all)
            });
        });
    }
    let ended = run(name, Ranks::Processes, 3, &[]).expect("ended");
    let process = ended.children[1].0.split_whitespace().nth(1).expect("its number").to_owned();
    check(&ended, &[&format!("rank 1 (process {process}) is gone, without a call")]);
}

/// The process that made the id holds the table: without it nobody can go on.
#[test]
fn the_process_that_made_the_id_ends() {
    let name = "the_process_that_made_the_id_ends";
    if std::env::var_os("VNCCL_RANKS").is_some() {
        return as_rank(|rank| {
            let mine = rank.buffer(&own(rank.rank, 2));
            let mut all = rank.buffer(&[0.0; 4]);
            fails(&rank, |communicator| {
                if rank.rank == 0 {
                    std::process::exit(0);
                }
                rank.all_gather(communicator, &mine, &mut all)
            });
        });
    }
    check(&run(name, Ranks::Processes, 2, &[]).expect("ended"), &["which made the id, is gone"]);
}

#[test]
fn a_communicator_destroyed_in_use() {
    let texts = [
        "rank 1: the communicator is destroyed while ncclAllGather of 2 f32 is in a stream",
        "rank 1 destroyed its communicator while ncclAllGather of 2 f32 was in a stream",
    ];
    with_fault("a_communicator_destroyed_in_use", 2, &texts, |rank| {
        let mine = rank.buffer(&own(rank.rank, 2));
        let mut all = rank.buffer(&[0.0; 4]);
        fails(&rank, |communicator| {
            let status = rank.all_gather(communicator, &mine, &mut all);
            if rank.rank == 1 {
                ok(status).expect("is put in the stream");
                assert_eq!(destroy(communicator), Err(Status::ncclInvalidUsage));
            }
            status
        });
    });
}

#[test]
fn a_communicator_used_after_its_end() {
    let texts = ["ncclAllGather: the communicator does not exist, or was destroyed", "rank 0 has destroyed"];
    with_fault("a_communicator_used_after_its_end", 2, &texts, |rank| {
        let mine = rank.buffer(&own(rank.rank, 2));
        let mut all = rank.buffer(&[0.0; 4]);
        let communicator = rank.join();
        if rank.rank == 0 {
            destroy(communicator).expect("is destroyed");
            assert_eq!(rank.all_gather(communicator, &mine, &mut all), Status::ncclInvalidArgument);
            // The table is in this process.
            std::thread::sleep(Duration::from_secs(1));
            return;
        }
        ok(rank.all_gather(communicator, &mine, &mut all)).expect("is put in the stream");
        rank.stream.synchronize().expect_err("fails");
    });
}

/// A rank that gives up is no fault of its own; its stream ends, and what it would have received is
/// not there.
#[test]
fn an_aborted_communicator_ends_its_stream() {
    let name = "an_aborted_communicator_ends_its_stream";
    let texts = ["rank 1 has aborted its communicator; rank 0 waits in call 1", "were never written"];
    with_fault(name, 2, &texts, |rank| {
        let mine = rank.buffer(&own(rank.rank, 2));
        let mut all = rank.buffer(&[0.0; 4]);
        if rank.rank == 0 {
            return fails(&rank, |communicator| rank.all_gather(communicator, &mine, &mut all));
        }
        let communicator = rank.join();
        // The other rank waits by then.
        std::thread::sleep(Duration::from_millis(500));
        ok(rank.all_gather(communicator, &mine, &mut all)).expect("is put in the stream");
        // SAFETY: any handle may be passed.
        ok(unsafe { sys::ncclCommAbort(communicator) }).expect("is aborted");
        rank.stream.synchronize().expect("ends");
        rank.stream.clone_dtoh(&all).expect_err("is not there");
    });
}

/// How a program touches a buffer without an order.
fn touched(name: &str, texts: &[&str], touch: impl Fn(&Rank, &mut CudaSlice<f32>, &mut CudaSlice<f32>) + Sync) {
    with_fault(name, 2, texts, |rank| {
        let mut mine = rank.buffer(&own(rank.rank, 2));
        let mut all = rank.buffer(&[0.0; 4]);
        let communicator = rank.join();
        ok(rank.all_gather(communicator, &mine, &mut all)).expect("is put in the stream");
        if rank.rank == 1 {
            touch(&rank, &mut mine, &mut all);
        }
        let ended = rank.stream.synchronize();
        assert_eq!(ended.is_err(), rank.rank == 1, "{ended:?}");
        std::thread::sleep(Duration::from_millis(200));
    });
}

#[test]
fn a_result_that_another_stream_reads_too_early() {
    let texts = ["copy to the host: some of the 16 bytes", "while ncclAllGather of 2 f32 of rank 1 is under way"];
    touched("a_result_that_another_stream_reads_too_early", &texts, |rank, _, all| {
        let other = rank.context.new_stream().expect("a stream");
        other.clone_dtoh(all).expect_err("is refused");
    });
}

#[test]
fn a_result_that_another_stream_overwrites() {
    let texts = ["copy to the device: some of the 16 bytes", "while ncclAllGather of 2 f32 of rank 1 is under way"];
    touched("a_result_that_another_stream_overwrites", &texts, |rank, _, all| {
        rank.context.new_stream().expect("a stream").memset_zeros(all).expect("is queued");
    });
}

/// Stores a zero to its argument.
const STORE: &str = r#".version 8.0
.target sm_80
.address_size 64
.file 1 "store.cu"
.visible .entry store(.param .u64 p_x)
{
.reg .b32 %r<2>; .reg .b64 %rd<2>;
.loc 1 3 0
ld.param.u64 %rd1, [p_x];
mov.u32 %r1, 0;
st.global.u32 [%rd1], %r1;
ret;
}
"#;

#[test]
fn a_result_that_a_kernel_touches() {
    let texts = ["vgpu: store: ", "at store.cu:3, block 0", "while ncclAllGather of 2 f32 of rank 1 is under way"];
    touched("a_result_that_a_kernel_touches", &texts, |rank, _, all| {
        let module = rank.context.load_module(Ptx::from_src(STORE)).expect("a module");
        let function = module.load_function("store").expect("the kernel");
        let other = rank.context.new_stream().expect("a stream");
        let mut launch = other.launch_builder(&function);
        launch.arg(all);
        let config = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (1, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the kernel takes a pointer to a number.
        unsafe { launch.launch(config) }.expect("is queued");
    });
}

#[test]
fn what_is_given_changes_in_another_stream() {
    let texts = ["rank 1: bytes that ncclAllGather of 2 f32 gives", "were written before the stream had passed it"];
    touched("what_is_given_changes_in_another_stream", &texts, |rank, mine, _| {
        rank.context.new_stream().expect("a stream").memset_zeros(mine).expect("is queued");
    });
}

/// With an event between them, the same is no fault.
#[test]
fn an_event_orders_another_stream() {
    for_all_ranks("an_event_orders_another_stream", |rank| {
        let mut mine = rank.buffer(&own(rank.rank, 2));
        let mut all = rank.buffer(&vec![0.0; 2 * rank.n]);
        let communicator = rank.join();
        ok(rank.all_gather(communicator, &mine, &mut all)).expect("is put in the stream");
        let other = rank.context.new_stream().expect("a stream");
        other.wait(&rank.stream.record_event(None).expect("an event")).expect("waits");
        other.memset_zeros(&mut mine).expect("is queued");
        let seen = other.clone_dtoh(&all).expect("a copy");
        assert_eq!(seen, (0..rank.n).flat_map(|other| own(other, 2)).collect::<Vec<_>>());
        destroy(communicator).expect("is destroyed");
    });
}

#[test]
fn calls_in_two_streams_at_once() {
    let texts = ["nothing orders the two", "ncclAllGather of 2 f32 is under way in another stream"];
    with_fault("calls_in_two_streams_at_once", 2, &texts, |mut rank| {
        let mine = rank.buffer(&own(rank.rank, 2));
        let (mut one, mut two) = (rank.buffer(&[0.0; 4]), rank.buffer(&[0.0; 4]));
        let communicator = rank.join();
        ok(rank.all_gather(communicator, &mine, &mut one)).expect("is put in the stream");
        rank.stream = rank.context.new_stream().expect("a stream");
        ok(rank.all_gather(communicator, &mine, &mut two)).expect("is put in the stream");
        rank.context.synchronize().expect_err("fails");
        std::thread::sleep(Duration::from_millis(200));
    });
}

/// What is wrong with one call is said when it is made, or when its stream reaches it.
#[test]
fn arguments_that_cannot_be() {
    let texts = [
        "ncclSend: rank 0: rank 1 of 1",
        "ncclRecv: rank 0: rank 4294967295 of 1",
        "ncclGroupEnd: rank 0: rank 1 of 1",
        "ncclGroupEnd without ncclGroupStart",
        "receives bytes that ncclAllGather of 2 f32 gives",
        "ncclCommInitRank: the id is not one that ncclGetUniqueId made",
        "but calls it on GPU 1",
        "that ncclAllGather of 2 f32 gives, some were never written",
    ];
    let name = "arguments_that_cannot_be";
    if std::env::var_os("VNCCL_RANKS").is_none() {
        let ended = run(name, Ranks::Threads, 1, &[("VGPU_DEVICES", "2")]).expect("ended");
        return check(&ended, &texts);
    }
    as_rank(|rank| {
        let mine = rank.buffer(&own(0, 4));
        let mut all = rank.buffer(&[0.0; 2]);
        let communicator = rank.join();
        let stream = rank.cu_stream();
        let (from, to) = (at(&mine, &rank.stream), at_mut(&mut all, &rank.stream));
        // SAFETY: each call is refused, or the buffers hold what it says.
        unsafe {
            assert_eq!(sys::ncclSend(from as _, 2, FLOAT, 1, communicator, stream), Status::ncclInvalidArgument);
            assert_eq!(sys::ncclRecv(to as _, 2, FLOAT, -1, communicator, stream), Status::ncclInvalidArgument);
            result::group_start().expect("starts");
            assert_eq!(sys::ncclSend(from as _, 2, FLOAT, 1, communicator, stream), Status::ncclInvalidArgument);
            assert_eq!(sys::ncclGroupEnd(), Status::ncclInvalidArgument);
            assert_eq!(sys::ncclGroupEnd(), Status::ncclInvalidUsage);
            let shifted = (from + 4) as *mut _;
            let overlaps = sys::ncclAllGather(from as _, shifted, 2, FLOAT, communicator, stream);
            assert_eq!(overlaps, Status::ncclInvalidUsage);
            let text = std::ffi::CStr::from_ptr(sys::ncclGetLastError(communicator)).to_string_lossy().into_owned();
            assert!(text.contains("receives bytes"), "{text}");
            let id = sys::ncclUniqueId { internal: [1; 128] };
            assert_eq!(rank.try_join(1, id), Err(Status::ncclInvalidArgument));
            let other = cudarc::driver::CudaContext::new(1).expect("a GPU");
            assert_eq!(rank.all_gather(communicator, &mine, &mut all), Status::ncclInvalidUsage);
            rank.context.bind_to_thread().expect("the first GPU");
            drop(other);
            let empty = rank.stream.alloc::<f32>(2).expect("memory");
            ok(rank.all_gather(communicator, &empty, &mut all)).expect("is put in the stream");
        }
        rank.stream.synchronize().expect_err("fails");
    });
}

#[test]
fn ranks_on_one_gpu_or_of_another_number() {
    let name = "ranks_on_one_gpu_or_of_another_number";
    if let Ok(fault) = std::env::var("VNCCL_FAULT") {
        return as_rank(|rank| {
            let id = rank.id();
            let mut _second = None;
            if fault == "gpu" {
                _second = Some(cudarc::driver::CudaContext::new(0).expect("a GPU"));
            }
            let n = if fault == "number" { 2 + rank.rank } else { 2 };
            assert_eq!(rank.try_join(n, id), Err(Status::ncclInvalidUsage));
            std::thread::sleep(Duration::from_millis(200));
        });
    }
    for (fault, text) in [("gpu", "both use GPU 0"), ("number", "says ")] {
        for ranks in [Ranks::Threads, Ranks::Processes] {
            check(&run(name, ranks, 2, &[("VNCCL_FAULT", fault)]).expect("ended"), &[text]);
        }
    }
}
