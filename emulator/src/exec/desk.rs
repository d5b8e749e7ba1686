//! What a thread of the host runs the CTAs of a kernel with, one after the other. The kernel keeps it from launch to launch:
//! none of it decides what a CTA does, it only need not be found out or bought again.

use std::mem::swap;
use std::sync::{Mutex, PoisonError};

use super::copies::Issued;
use super::cta::Cta;
use super::patterns::Patterns;
use super::tally::Tally;
use crate::lower::kernel::Kernel;

/// Desks that a kernel keeps, and room for copies in flight that one keeps for a warp. A host with more threads and a kernel with
/// more copies buy the others anew.
const MOST_DESKS: usize = 256;
const MOST_SPARE: usize = 64;

/// Empty until it is first taken.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    patterns: Patterns,
    /// For each instruction, the allocation that it accessed last.
    hints: Vec<u32>,
    pub(super) tally: Tally,
    /// By the number of a warp.
    #[allow(clippy::vec_box)] // As a warp's queue has them.
    spare: Vec<Vec<Box<Issued>>>,
}

impl Desk {
    /// Gives the CTA what lies here, and takes back what it was given.
    pub(super) fn exchange(&mut self, cta: &mut Cta<'_>) {
        let env = &mut cta.env;
        swap(&mut self.patterns, &mut env.patterns);
        swap(&mut self.hints, &mut env.hints);
        swap(&mut self.tally, &mut env.tally);
        for (spare, warp) in self.spare.iter_mut().zip(&mut cta.warps) {
            warp.copies.exchange_spare(spare);
        }
    }
}

/// The desks of a kernel that nobody works at.
#[derive(Debug, Default)]
pub(crate) struct Desks(Mutex<Vec<Desk>>);

impl Desks {
    /// A desk for CTAs of so many warps.
    pub(super) fn take(kernel: &Kernel, warps: usize) -> Desk {
        let free = kernel.desks.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut desk = free.unwrap_or_default();
        desk.hints.resize(kernel.code.len(), 0);
        desk.tally.resize(kernel.code.len());
        if desk.spare.len() < warps {
            desk.spare.resize_with(warps, Vec::new);
        }
        desk
    }

    /// Takes a desk back of which the tally has been drained.
    pub(super) fn put(kernel: &Kernel, mut desk: Desk) {
        desk.spare.iter_mut().for_each(|spare| spare.truncate(MOST_SPARE));
        let mut free = kernel.desks.0.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < MOST_DESKS {
            free.push(desk);
        }
    }
}
