//! Pool: memory that a thread used a moment ago, kept for the next block or activation of that size.
//!
//! An actor that handles one message and idles again takes and gives back a block of slots and a
//! future. Both come from here: a list a size on each thread, so that the same warm memory goes
//! round. Lists are short; what does not fit goes back to the allocator.
#![allow(
    unsafe_code,
    reason = "an activation takes and gives back two pieces of memory; what the core gains in all: docs/speed.md"
)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::UnsafeCell;
use std::ptr::NonNull;

/// Sizes are rounded up to a multiple of this.
const STEP: usize = 64;
/// Larger pieces are not kept.
const SIZE_MAX: usize = 2_048;
/// How many pieces of a size a thread keeps. None where AddressSanitizer shall see each use of memory
/// that was given back (`scripts/sanitize.sh`).
const KEPT_MAX: usize = if cfg!(otava_sanitize) { 0 } else { 16 };
const CLASSES: usize = SIZE_MAX / STEP;
const ALIGN: usize = 16;

struct Pieces {
    len: usize,
    pieces: [Option<NonNull<u8>>; KEPT_MAX],
}

struct Pool([Pieces; CLASSES]);

thread_local! {
    static POOL: UnsafeCell<Pool> = const {
        UnsafeCell::new(Pool([const { Pieces { len: 0, pieces: [None; KEPT_MAX] } }; CLASSES]))
    };
}

/// The size class, and what is really allocated for it.
const fn class(layout: Layout) -> Option<(usize, Layout)> {
    if layout.size() == 0 || layout.size() > SIZE_MAX || layout.align() > ALIGN {
        return None;
    }
    let class = layout.size().div_ceil(STEP);
    match Layout::from_size_align(class * STEP, ALIGN) {
        Ok(rounded) => Some((class - 1, rounded)),
        Err(_) => None,
    }
}

/// Memory for `layout`, which is not of size zero.
#[inline]
pub(crate) fn allocate(layout: Layout) -> NonNull<u8> {
    let Some((class, rounded)) = class(layout) else {
        return allocate_new(layout);
    };
    let kept = POOL.try_with(|pool| {
        // SAFETY: this thread's own, and no call in here comes back to it.
        let pieces = unsafe { &mut (&mut (*pool.get()).0)[class] };
        pieces.len = pieces.len.checked_sub(1)?;
        pieces.pieces[pieces.len].take()
    });
    match kept {
        Ok(Some(piece)) => piece,
        _ => allocate_new(rounded),
    }
}

/// Gives memory back.
///
/// # Safety
/// `piece` came from [`allocate`] with this `layout`, on any thread, and is not used any more.
#[inline]
pub(crate) unsafe fn free(piece: NonNull<u8>, layout: Layout) {
    let Some((class, rounded)) = class(layout) else {
        // SAFETY: allocated as it is.
        return unsafe { dealloc(piece.as_ptr(), layout) };
    };
    let kept = POOL.try_with(|pool| {
        // SAFETY: as above.
        let pieces = unsafe { &mut (&mut (*pool.get()).0)[class] };
        let Some(place) = pieces.pieces.get_mut(pieces.len) else {
            return false;
        };
        *place = Some(piece);
        pieces.len += 1;
        true
    });
    if kept != Ok(true) {
        // SAFETY: allocated with the rounded layout.
        unsafe { dealloc(piece.as_ptr(), rounded) }
    }
}

fn allocate_new(layout: Layout) -> NonNull<u8> {
    // SAFETY: not of size zero.
    let piece = unsafe { alloc(layout) };
    NonNull::new(piece).unwrap_or_else(|| handle_alloc_error(layout))
}

impl Drop for Pool {
    fn drop(&mut self) {
        for (class, pieces) in self.0.iter_mut().enumerate() {
            let Ok(layout) = Layout::from_size_align((class + 1) * STEP, ALIGN) else {
                continue;
            };
            for piece in pieces.pieces.iter_mut().filter_map(Option::take) {
                // SAFETY: pieces of this class were allocated with this layout, and none lies in
                // two places.
                unsafe { dealloc(piece.as_ptr(), layout) };
            }
            pieces.len = 0;
        }
    }
}
