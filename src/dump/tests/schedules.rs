// SPDX-License-Identifier: LGPL-2.1-or-later
//! Saved before released, in every order of the steps of all threads with one preemption at
//! most; `PREEMPTIONS=N` says how many. A preemption is a thread that could go on and is
//! made to wait. The first chunk is looked at when the last one has been handed in: one
//! that comes back too early, and is written before that, is not seen here.

use super::guest::{state, Guest, Memory, SMALL_BUFFERS};
use super::recorder::Recorder;
use crate::addr::Pfn;
use crate::dump::buffer::Sizes;
use crate::dump::kdump_writer::KdumpWriter;
use crate::dump::line::Line;
use crate::dump::output::Output;
use crate::dump::reader::Reader;
use crate::dump::worker::Worker;
use crate::dump::writer::Writer;
use crate::dump::{Bitmap, Bitmaps, Chunk, ChunkOutcome, Codec, Completed};
use crate::os::modelled::every_order::EveryOrder;
use crate::os::modelled::never_time_out;
use crate::os::modelled::scheduler::run;
use crate::os::thread::{start, Signals};
use std::sync::Arc;

const GUEST: Guest = Guest { frames: 6, seed: 0 };
/// First frames of the chunks, two frames each, of which one is dumped.
const CHUNKS: [u64; 3] = [0, 2, 4];
const WANTED: [u64; 3] = [1, 2, 4];
const WORKERS: usize = 2;

fn bitmaps() -> Arc<Bitmaps> {
    let mut present = Bitmap::new(Pfn(GUEST.frames)).unwrap();
    present.set_range(Pfn(0), Pfn(GUEST.frames));
    let mut wanted = Bitmap::new(Pfn(GUEST.frames)).unwrap();
    WANTED.iter().for_each(|pfn| wanted.set(Pfn(*pfn)));
    Arc::new(Bitmaps::new(present, wanted).unwrap())
}

fn chunk(number: usize) -> Chunk<Memory> {
    let first = CHUNKS[number];
    Chunk {
        first: Pfn(first),
        count: 2,
        pages: Memory {
            guest: GUEST,
            first,
        },
    }
}

/// What is in the sink now is all that is left of a chunk that comes back.
fn check_saved(sink: &Recorder, done: &Completed<Memory>) {
    let is_saved = matches!(done.outcome, ChunkOutcome::Saved { pages: 1 });
    assert!(is_saved, "{done:?}");
    let reader = Reader::open(sink.image()).unwrap();
    let first = done.chunk.first.0;
    let rank = CHUNKS.iter().position(|chunk| *chunk == first).unwrap();
    let stored = reader.descriptors(rank as u64, 1).unwrap()[0];
    let found = reader.page(stored).unwrap();
    let page = GUEST.page(WANTED[rank]);
    assert!(
        found == Some(page),
        "released before it was saved: {done:?}"
    );
}

/// Two threads that take chunks, one that writes, and this one, which hands the last chunk
/// in when there is room, and then gets the chunks back. One more thread to get them back
/// has sixty times as many orders (17,564 for 280 without a preemption).
fn dump() {
    never_time_out();
    let sink = Recorder::new(1);
    let sizes = Sizes::new(SMALL_BUFFERS, WORKERS).unwrap();
    let shared = state(bitmaps(), sizes);
    let (line, completed) = Line::new(Arc::clone(&shared), WORKERS, sizes.count);
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            Worker::new(
                Arc::clone(&shared),
                Codec::NONE.compressor().unwrap(),
                &line,
            )
        })
        .collect();
    let mut output = Output::new(Box::new(sink.clone()), None, Arc::clone(&shared));
    let format = KdumpWriter::begin(&mut output, &GUEST.facts(), &shared, sizes.size).unwrap();
    let of_line = Arc::clone(&line);
    let write = move || {
        let _writer = of_line.writer();
        Writer::new(Box::new(format), output, shared, of_line, None).run()
    };
    (0..2).for_each(|number| assert!(line.chunks.push(chunk(number)).is_ok()));

    let writing = start("write", Signals::ToOthers, write).unwrap();
    let work = |worker: Worker<Memory>| start("pack", Signals::ToOthers, move || worker.run());
    let working: Vec<_> = workers.into_iter().map(work).collect();
    assert!(line.chunks.push(chunk(2)).is_ok());
    line.chunks.close();
    let released = completed.into_iter().take(CHUNKS.len());
    released.for_each(|done| check_saved(&sink, &done));
    for thread in working {
        thread.unwrap().join().unwrap();
    }
    line.messages.close();
    let summary = writing.join().unwrap().unwrap();
    assert_eq!(summary.progress.pages, CHUNKS.len() as u64);
}

#[test]
fn a_chunk_comes_back_saved_in_every_order_of_steps() {
    let most = std::env::var("PREEMPTIONS").map_or(1, |most| most.parse().unwrap());
    let schedules = run(EveryOrder::new(most), dump);
    assert!(schedules > 100, "{schedules} orders: most were not tried");
    println!("faults: schedules {schedules}, dump: all with at most {most} preemptions");
}
