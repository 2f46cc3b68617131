//! Loading takes little more memory than the samples themselves: measured with an allocator that counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use action_matching::data::{DataSource, load, write_points};

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; only counters are added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(held, Relaxed);
        // SAFETY: the caller's layout, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's pointer and layout, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test, so that nothing else allocates meanwhile.
#[test]
fn loading_takes_at_most_1_3_times_the_samples() {
    let (n, dim) = (500_000, 16);
    let folder = tempfile::tempdir().expect("a folder");
    for suffix in ["npz", "safetensors"] {
        let path = folder.path().join(format!("large.{suffix}"));
        // Times out of order, so that rows must move.
        let samples: Vec<f32> = (0..n * dim).map(|i| (i % 1009) as f32).collect();
        let times: Vec<f32> = (0..n).map(|row| (row % 7) as f32).collect();
        write_points(&path, dim, &samples, &times).expect("written");
        drop((samples, times));

        let before = HELD.load(Relaxed);
        PEAK.store(before, Relaxed);
        let loaded = load(&DataSource::new(&path)).expect("loads");
        let ratio = (PEAK.load(Relaxed) - before) as f64 / (n * dim * 4) as f64;
        assert!(ratio <= 1.3, "{suffix}: {ratio:.3} times the samples");
        assert_eq!(loaded.training.offsets.last(), Some(&n));
    }
}
