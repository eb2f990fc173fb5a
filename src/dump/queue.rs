// SPDX-License-Identifier: LGPL-2.1-or-later
//! A bounded queue between threads. Closing it lets everybody go.

use crate::os::sync::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::PoisonError;

struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

/// Items on their way from some threads to others.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    most: usize,
    /// There is room, or the queue is closed.
    room: Condvar,
    /// There is an item, or the queue is closed.
    item: Condvar,
}

impl<T> Queue<T> {
    /// An empty queue of `most` items, at least one.
    pub(super) fn new(most: usize) -> Self {
        Self {
            state: Mutex::new(State {
                items: VecDeque::new(),
                closed: false,
            }),
            most: most.max(1),
            room: Condvar::new(),
            item: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends an item; waits while there is no room.
    ///
    /// # Errors
    /// The item itself, when the queue is closed.
    pub(super) fn push(&self, item: T) -> Result<(), T> {
        let full = |state: &mut State<T>| !state.closed && state.items.len() >= self.most;
        let waited = self.room.wait_while(self.state(), full);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return Err(item);
        }
        state.items.push_back(item);
        drop(state);
        self.item.notify_one();
        Ok(())
    }

    /// The first item, if there is one now.
    pub(super) fn try_pop(&self) -> Option<T> {
        let item = self.state().items.pop_front();
        if item.is_some() {
            self.room.notify_one();
        }
        item
    }

    /// The first item; waits for one. `None` when the queue is closed and empty.
    pub(super) fn pop(&self) -> Option<T> {
        let empty = |state: &mut State<T>| !state.closed && state.items.is_empty();
        let waited = self.item.wait_while(self.state(), empty);
        let item = waited
            .unwrap_or_else(PoisonError::into_inner)
            .items
            .pop_front();
        self.room.notify_one();
        item
    }

    /// No more items are taken in; those that are there can still be taken out.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.room.notify_all();
        self.item.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    const DEADLINE: Duration = Duration::from_secs(20);

    #[test]
    fn items_come_out_in_order_and_closing_keeps_them() {
        let queue = Queue::new(3);
        (0..3).for_each(|item| queue.push(item).unwrap());
        queue.close();
        assert_eq!(queue.push(3), Err(3));
        assert_eq!((queue.try_pop(), queue.pop()), (Some(0), Some(1)));
        assert_eq!(
            (queue.pop(), queue.pop(), queue.try_pop()),
            (Some(2), None, None)
        );
    }

    #[test]
    fn closing_lets_everybody_go() {
        let (full, empty) = (Queue::new(1), Queue::<u32>::new(1));
        full.push(1).unwrap();
        std::thread::scope(|scope| {
            let (gone, goes) = mpsc::channel();
            let also_gone = gone.clone();
            let (full, empty) = (&full, &empty);
            scope.spawn(move || gone.send(full.push(2).err()));
            scope.spawn(move || also_gone.send(empty.pop()));
            assert!(goes.recv_timeout(Duration::from_millis(10)).is_err());
            full.close();
            assert_eq!(goes.recv_timeout(DEADLINE), Ok(Some(2)), "who pushes");
            empty.close();
            assert_eq!(goes.recv_timeout(DEADLINE), Ok(None), "who pops");
        });
    }
}
