// SPDX-License-Identifier: LGPL-2.1-or-later
//! A channel without a bound, from many threads to one.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

pub(crate) use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError};

use super::lock::{Condvar, Mutex, MutexGuard};

struct State<T> {
    items: VecDeque<T>,
    senders: usize,
    /// Nobody receives any more.
    closed: bool,
}

struct Channel<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

impl<T> Channel<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where things are put in; see [`std::sync::mpsc::Sender`].
pub(crate) struct Sender<T>(Arc<Channel<T>>);

/// Where they come out; see [`std::sync::mpsc::Receiver`].
#[allow(unreachable_pub)] // the engine's callers get one
pub struct Receiver<T>(Arc<Channel<T>>);

/// A new channel.
pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let channel = Arc::new(Channel {
        state: Mutex::new(State {
            items: VecDeque::new(),
            senders: 1,
            closed: false,
        }),
        changed: Condvar::new(),
    });
    (Sender(channel.clone()), Receiver(channel))
}

impl<T> Sender<T> {
    /// Puts something in.
    pub(crate) fn send(&self, item: T) -> Result<(), SendError<T>> {
        let mut state = self.0.state();
        if state.closed {
            return Err(SendError(item));
        }
        state.items.push_back(item);
        drop(state);
        self.0.changed.notify_one();
        Ok(())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.state().senders += 1;
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.state().senders -= 1;
        self.0.changed.notify_one();
    }
}

fn nothing<T>(state: &mut State<T>) -> bool {
    state.items.is_empty() && state.senders > 0
}

impl<T> Receiver<T> {
    /// Waits for something.
    pub(crate) fn recv(&self) -> Result<T, RecvError> {
        let waited = self.0.changed.wait_while(self.0.state(), nothing);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.items.pop_front().ok_or(RecvError)
    }

    /// Waits for something, or until the time is over.
    pub(crate) fn recv_timeout(&self, most: Duration) -> Result<T, RecvTimeoutError> {
        let (state, channel) = (self.0.state(), &self.0);
        let waited = channel.changed.wait_timeout_while(state, most, nothing);
        let (mut state, ()) = waited.unwrap_or_else(PoisonError::into_inner);
        match state.items.pop_front() {
            Some(item) => Ok(item),
            None if state.senders == 0 => Err(RecvTimeoutError::Disconnected),
            None => Err(RecvTimeoutError::Timeout),
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.closed = true;
        let unseen = std::mem::take(&mut state.items);
        drop(state);
        drop(unseen);
    }
}

/// All that comes.
#[allow(unreachable_pub)] // as above
pub struct IntoIter<T>(Receiver<T>);

impl<T> Iterator for IntoIter<T> {
    type Item = T;
    fn next(&mut self) -> Option<T> {
        self.0.recv().ok()
    }
}

impl<T> IntoIterator for Receiver<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;
    fn into_iter(self) -> IntoIter<T> {
        IntoIter(self)
    }
}
