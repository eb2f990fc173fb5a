/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libvicover: dump a crashed Xen guest while its replacement already boots on
 * the memory that the dump gives back.
 *
 * This header is the authority on the C ABI. The Rust side is generated from
 * it and does not build when the two disagree.
 *
 * Shape of a call: fill a struct whose first member is its own size, start a
 * job, then poll it or wait for it, read its result, free it.
 *
 *     struct vicover_options o = { .struct_size = sizeof(o), .name = "web1" };
 *     struct vicover_image   i = { .struct_size = sizeof(i), .path = "ram.img" };
 *     vicover_job job;
 *     if (vicover_dump_image(&o, &i, &job) != VICOVER_OK)
 *         errx(1, "%s", vicover_last_error());
 *     vicover_wait(job, VICOVER_UNTIL_DONE, VICOVER_FOREVER);
 *     vicover_free(job);
 *
 * Rules that hold for every function:
 *  - Structs are versioned by size: members are only ever appended, zero means
 *    "default", and a caller newer than the library is accepted as long as the
 *    members the library does not know are zero.
 *  - Every function that can fail returns a vicover_status. On failure the
 *    calling thread's vicover_last_error() says what happened and why.
 *  - Handles are numbers, not pointers: using one after vicover_free() is an
 *    error that is reported, not undefined behaviour.
 *  - Any function may be called from any thread.
 *  - Structs, strings and configurations that are passed in are read before the
 *    call returns, and copied: the caller may change or free them then. What has
 *    to live longer says so: ctx, and what log needs.
 *  - Text for people is one line of UTF-8 without control characters: those of a
 *    caller's or a guest's text are escaped. Paths come out as they went in.
 *  - The library starts no process, installs no signal handler and no logger.
 *    None of its descriptors is 0, 1 or 2, also when the caller has closed these.
 *    fork() waits while it opens or closes a handle of Xen's, for an instant. A
 *    child has none of the threads: a job of its parent's never gets on there, and
 *    is not to be waited for or freed; new jobs can be started.
 *  - ctx and config must be of the libxl that the library was built for, see
 *    vicover_xen_version().
 */
#ifndef VICOVER_H
#define VICOVER_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The ABI this header describes. The low 16 bits grow with every addition; a
 * library is usable when its high 16 bits are equal and its low ones are not
 * smaller. */
#define VICOVER_ABI_VERSION 0x0000000bu

/* Status codes: never reused, never renumbered. */
typedef int32_t vicover_status;
#define VICOVER_OK                  0
#define VICOVER_ERR_NULL           (-1) /* a pointer that must not be null is */
#define VICOVER_ERR_STRUCT_SIZE    (-2) /* struct_size is not one we know */
#define VICOVER_ERR_OPTION         (-3) /* unknown option or bad value */
#define VICOVER_ERR_HANDLE         (-4) /* no such job (freed already?) */
#define VICOVER_ERR_TIMEOUT        (-5) /* not there yet; the job goes on */
#define VICOVER_ERR_IO             (-6) /* a file could not be read or written */
#define VICOVER_ERR_HOST           (-7) /* Xen or libxl refused */
#define VICOVER_ERR_GUEST          (-8) /* reserved; nothing answers it. What is not
                                         * understood of a guest is in the log, and
                                         * more of it in the dump */
#define VICOVER_ERR_CANCELLED      (-9) /* stopped by vicover_cancel() */
#define VICOVER_ERR_BUSY          (-10) /* the job is still running */
#define VICOVER_ERR_UNSUPPORTED   (-11) /* not in this build or on this guest */
#define VICOVER_ERR_BUFFER        (-12) /* the buffer is too small; the text says
                                         * how many bytes are needed. Since 5 */
#define VICOVER_ERR_NOT_CRASHED   (-13) /* VICOVER_CRASH_IF_PANICKED, and no panic was
                                         * found; nothing was changed. Since 10 */
#define VICOVER_ERR_INTERNAL      (-99) /* a bug in libvicover, contained */

/* A running or finished job. Zero is never a job. */
typedef uint64_t vicover_job;

/* Severity of a log message. */
typedef int32_t vicover_level;
#define VICOVER_LOG_ERROR  1
#define VICOVER_LOG_WARN   2
#define VICOVER_LOG_INFO   3
#define VICOVER_LOG_DEBUG  4

/* Receives log messages, one line each, without newline. Called from the
 * job's own threads, never by two at once, and not any more once
 * vicover_wait(job, VICOVER_UNTIL_DONE, ...) has returned OK: until then user must
 * live. Must not call into libvicover. Why a job fails is told once, when it
 * happens. Messages carry no time: the receiver knows it. */
typedef void (*vicover_log_fn)(void *user, vicover_level level,
                               const char *message);

/* Something that happened in a job. Its texts are the library's, and good until the
 * callback returns. Members may be added at the end: look at struct_size before
 * reading one that is not of version 7. Since 7. */
struct vicover_event {
    size_t        struct_size; /* of the library's struct vicover_event */
    vicover_level level;
    uint32_t      reserved;    /* zero */
    uint64_t      elapsed_ms;  /* since the job was started */
    const char   *about;       /* what happened, in two words: "recovery", ... */
    const char   *event;       /* ... "settled" */
    const char   *message;     /* the line that vicover_log_fn gets */
    const char   *record;      /* all of it as one JSON object in a line: version
                                * (1), guest, at_ms, level, about, event, the
                                * event's own members, whose names end in their
                                * units, and line. Members may be added. 128 KiB
                                * at most */
};

/* Receives events; called as a vicover_log_fn is, before it. Since 7. */
typedef void (*vicover_event_fn)(void *user, const struct vicover_event *event);

/* What every job needs to know. */
struct vicover_options {
    size_t         struct_size; /* sizeof(struct vicover_options) */
    const char    *spec;        /* "key=value,..." as in xl.cfg; NULL: none */
    const char    *name;        /* the guest's name, for file names and logs;
                                 * NULL: "guest" */
    const char    *dump_dir;    /* where dumps go, and records of crashes wherever
                                 * their dump goes; NULL: as conf_file says, else
                                 * /var/lib/xen/dump. Made
                                 * (mode 0700) when it is missing and the directory
                                 * that it is in is there */
    vicover_log_fn log;         /* NULL: the log crate's logger, if any is set */
    void          *log_user;    /* handed to log unchanged */
    uint32_t       flags;       /* sum of VICOVER_OPTION_... */
    int32_t        sink_fd;     /* with VICOVER_OPTION_SINK_FD; else zero */
    const char    *dump_file;   /* the dump's path, instead of a name of its own
                                 * in dump_dir; refused when there is such a
                                 * file, by the call that starts the job. Ends in
                                 * .incomplete until the dump is complete; NULL:
                                 * dump_dir. Since 3 */
    vicover_event_fn event;     /* NULL: no events. Since 7 */
    void            *event_user; /* handed to event unchanged. Since 7 */
    const char      *journal_dir; /* where vicover_recover() writes down what a crash
                                   * has come to, for vicover_resume(); NULL:
                                   * /run/vicover. Made (mode 0700) as dump_dir is.
                                   * A journal is gone when its job is over. Since 8.
                                   * The guest's crashes are counted there, too: in
                                   * UUID.crashes, which stays. Since 9 */
    const char      *conf_file; /* options of the host, a key=value in each line,
                                 * for what spec does not say, and "directory", for
                                 * dump_dir when that is NULL; NULL:
                                 * /etc/xen/vicover.conf. One that is not there says
                                 * nothing; a fault in it is refused by
                                 * vicover_check_domain(), and elsewhere told and
                                 * none of it taken. vicover_resume() does not read
                                 * it. Since 11 */
};

/* The dump goes to sink_fd and not to a file of its own. A regular file or a
 * block device is written in place, what is in it is lost; a pipe, FIFO, socket
 * or other device gets a flattened stream (as of `makedumpfile -F`), which
 * cannot hold format=elf. The library works on a duplicate: the caller may close
 * its own when the call that starts the job returns. There is no manifest. ERR_IO,
 * and nothing is written, when it is not open for writing, or open with O_DIRECT or
 * (a file or block device) O_APPEND, or is none of these kinds.
 * A flag rather than a number that means "none": 0 is a descriptor. */
#define VICOVER_OPTION_SINK_FD 0x1u

/* Memory that is not in Xen: a raw image in a file, or a synthetic guest. */
struct vicover_image {
    size_t      struct_size;    /* sizeof(struct vicover_image) */
    const char *path;           /* raw guest-physical image, which must not be
                                 * shortened meanwhile; NULL: synthetic. A
                                 * directory: its file "ram", laid out as its
                                 * file "ranges" says in lines of guest address,
                                 * offset, length, all decimal; and in its file
                                 * "registers", if there is one, the processors'
                                 * registers as QEMU's monitor prints them for
                                 * `info registers -a` */
    uint64_t    memory_bytes;   /* size of a synthetic guest, at most 16 TiB;
                                 * unused for a file */
    uint32_t    vcpus;          /* 0: one; at most 4096; "registers" says it by
                                 * itself */
    uint32_t    reserved;       /* zero */
};

/* A crashed domain in the caller's hands (xl's, usually). The library may
 * call libxl with ctx from its own threads until the job is done. */
struct libxl__ctx;
struct libxl_domain_config;
struct vicover_crash {
    size_t                      struct_size; /* sizeof(struct vicover_crash) */
    struct libxl__ctx          *ctx;         /* lives until the job is done */
    struct libxl_domain_config *config;      /* complete, read from libxl before
                                              * the call; copied, not kept */
    uint32_t                    domid;       /* shut down, not yet destroyed */
    uint32_t                    flags;       /* sum of VICOVER_CRASH_...; zero before
                                              * 10 */
    vicover_job                 standby;     /* from vicover_keep_standby(); 0:
                                              * none. Since 4 */
};

/* The domain has asked for a restart. That is how a panic ends where Linux resets the
 * machine: an HVM guest without xen_legacy_crash on its command line. vicover_recover()
 * first looks for one at the end of the kernel's log, before it returns, and answers
 * ERR_NOT_CRASHED when it finds none. Since 10. */
#define VICOVER_CRASH_IF_PANICKED 0x1u

/* A domain in the caller's hands that may be running. Since 3. */
struct vicover_domain {
    size_t                      struct_size; /* sizeof(struct vicover_domain) */
    struct libxl__ctx          *ctx;         /* lives until the job is done */
    struct libxl_domain_config *config;      /* complete, read from libxl before
                                              * the call; copied, not kept */
    uint32_t                    domid;       /* not 0, but see
                                              * vicover_check_domain() */
    uint32_t                    reserved;    /* zero */
};

/* A crash that a process was handling when it was killed. Since 8. */
struct vicover_interrupted {
    size_t   struct_size;   /* sizeof(struct vicover_interrupted) */
    uint32_t domid;         /* the crashed domain's number */
    uint32_t reserved;      /* zero */
    char     guest[256];    /* the guest's name, cut to fit; empty when its journal
                             * cannot be read */
    char     journal[1024]; /* the journal's path */
};

/* How a crash ended for the caller. */
typedef int32_t vicover_outcome;
#define VICOVER_OUTCOME_UNDECIDED 0 /* too early to tell */
#define VICOVER_OUTCOME_ADOPTED   1 /* the recovery domain runs: watch that one */
#define VICOVER_OUTCOME_UNTOUCHED 2 /* nothing was changed: do as if we were not
                                     * here. The outcome of every job that is not
                                     * about a crash, whatever became of its dump */
#define VICOVER_OUTCOME_DIRTY     3 /* the crashed domain lost devices or memory,
                                     * for what reason is in the log: destroy it
                                     * and restart. Its dump may be complete */
/* The guest keeps crashing (max_crashes): the domain is as it crashed, and what the
 * option on_crash_loop says is to be done with it. Since 9; a caller of an older
 * version that treats what it does not know as DIRTY restarts the guest. */
#define VICOVER_OUTCOME_RESTART   4 /* destroy it and start it anew */
#define VICOVER_OUTCOME_DESTROY   5 /* destroy it */
#define VICOVER_OUTCOME_PRESERVE  6 /* leave it */

/* Where a job is. Phases only ever go forward; new ones may be added between. */
typedef int32_t vicover_phase;
#define VICOVER_PHASE_STARTING   0
#define VICOVER_PHASE_UNDERSTAND 10 /* reading registers and memory */
#define VICOVER_PHASE_DETACH     20 /* disks and interfaces leave the dead guest */
#define VICOVER_PHASE_SEED       30 /* freeing what recovery needs to be built */
#define VICOVER_PHASE_RECOVER    40 /* building the recovery domain */
#define VICOVER_PHASE_DRAIN      50 /* recovery runs, the dump goes on */
#define VICOVER_PHASE_CLOSE      60 /* finishing file and domains */
#define VICOVER_PHASE_DONE       70 /* no thread of the job is left, but for
                                     * what vicover_cancel() says of disks */

/* A snapshot of a job. */
struct vicover_progress {
    size_t          struct_size;     /* sizeof(struct vicover_progress) */
    vicover_phase   phase;
    vicover_outcome outcome;
    vicover_status  status;          /* of the dump, final when phase is DONE */
    uint32_t        recovery_domid;  /* 0 until there is one */
    uint64_t        pages_total;     /* pages of RAM that the guest had */
    uint64_t        pages_planned;   /* of those, to be dumped */
    uint64_t        pages_dumped;    /* of those, written so far */
    uint64_t        pages_released;  /* given back to the hypervisor so far */
    uint64_t        dump_bytes;      /* size of the dump so far */
    uint64_t        elapsed_ms;      /* since the job was started, until it is DONE */
};

/* What vicover_wait() waits for. */
typedef int32_t vicover_until;
#define VICOVER_UNTIL_DECIDED 1 /* the outcome of a crash is known */
#define VICOVER_UNTIL_DONE    2 /* the job is over */

#define VICOVER_FOREVER (-1) /* as is every other negative number */

/* What a dump is worth. */
typedef int32_t vicover_dump_state;
#define VICOVER_DUMP_COMPLETE   1 /* all it promises is there, as written */
#define VICOVER_DUMP_INCOMPLETE 2 /* unfinished or cut off; opens up to there */
#define VICOVER_DUMP_DAMAGED    3 /* something in it was not written so */

/* What vicover_verify() found. Since 2. */
struct vicover_verdict {
    size_t             struct_size;   /* sizeof(struct vicover_verdict) */
    vicover_dump_state state;
    uint32_t           with_manifest; /* 1: compared with its checksums */
    uint64_t           wanted_pages;  /* that the dump is to hold */
    uint64_t           stored_pages;  /* of those, with content of their own */
    uint64_t           zero_pages;    /* of those, of zeroes only */
    uint64_t           lost_pages;    /* of those, not there: never written, cut
                                       * off, unreadable, or without room */
    uint64_t           length;        /* of the file or device, in bytes */
    char               reason[160];   /* why it is not complete, cut to fit;
                                       * empty when it is */
};

/* What vicover_check_domain() found. Since 5. */
struct vicover_preflight {
    size_t   struct_size;   /* sizeof(struct vicover_preflight) */
    uint64_t dump_room;     /* bytes that a dump may have now; UINT64_MAX: nobody
                             * can say, as of a FIFO, or there would be no dump */
    char     declined[512]; /* why vicover_recover() would answer ERR_UNSUPPORTED,
                             * cut to fit; empty: it would not */
    char     no_dump[512];  /* why no dump could be written, cut to fit; empty when
                             * one could */
};

/* The ABI the library implements: compare with VICOVER_ABI_VERSION. */
uint32_t vicover_abi_version(void);

/* The Xen that the library was built for: major number in the high 16 bits, minor
 * number in the low ones, 0x00040011 for 4.17; 0: built without Xen. A structure of
 * another Xen's libxl is laid out differently, so compare before passing one in. A
 * call that takes ctx answers ERR_UNSUPPORTED in a process whose libxl is another's,
 * as far as the name of libxl's file tells. Since 5. */
uint32_t vicover_xen_version(void);

/* The library's version, such as "0.1.0". Static. */
const char *vicover_version(void);

/* Why the last failing call of this thread failed, causes included, in one
 * line: "starting the dump: /var/lib/xen/dump/...: Permission denied". Valid
 * until the next call on this thread. Never NULL. */
const char *vicover_last_error(void);

/* Checks an option text without starting anything. OK, or ERR_OPTION with a
 * text that names the key, the value and what is allowed. */
vicover_status vicover_check_options(const char *spec);

/* Says what would become of a domain if it crashed now, and changes nothing: whether
 * vicover_recover() would decline it, by the same rules, and whether a dump could be
 * written to dump_dir or to the sink that spec names, and how large. domid is 0 for a
 * domain that is not there yet: then what libxl would make of the configuration counts.
 * OK whatever was found. ERR_OPTION also for dump_file and flags: where a job of its
 * own writes is known when it is started. Since 5. */
vicover_status vicover_check_domain(const struct vicover_options *options,
                                    const struct vicover_domain *domain,
                                    struct vicover_preflight *found);

/* Dumps memory that is not in Xen. */
vicover_status vicover_dump_image(const struct vicover_options *options,
                                  const struct vicover_image *image,
                                  vicover_job *job);

/* Dumps a domain that may be running. It is paused until all of it has been
 * read, and runs again however the job ended; one that the caller had paused
 * stays paused. A process that is killed leaves it paused. Since 3. */
vicover_status vicover_dump_domain(const struct vicover_options *options,
                                   const struct vicover_domain *domain,
                                   vicover_job *job);

/* Keeps a standby for a running domain, as the option standby says: a recovery
 * domain that is built before it is needed, and kept stopped beside the domain. It
 * goes into vicover_crash.standby when the domain crashes. The job is done when a
 * recovery has taken the standby, when it was cancelled (then the standby is gone),
 * or when there cannot be one: vicover_job_error() says why. While the domain's
 * memory is still being handed over to it, the job waits. *job is 0 when the
 * options ask for no standby. Since 4. */
vicover_status vicover_keep_standby(const struct vicover_options *options,
                                    const struct vicover_domain *domain,
                                    vicover_job *job);

/* Dumps a crashed domain and recovers it. The outcome is decided when
 * vicover_wait(job, VICOVER_UNTIL_DECIDED, ...) returns OK; the dump may go on
 * for long after. A guest that has crashed before may get no dump, or nothing but an
 * outcome: see the options max_dumps and max_crashes. When the dump of an earlier crash of the guest is still being
 * written, by this process: ERR_BUSY, or with on_recrash=queue a job that waits
 * for that one to be done. */
vicover_status vicover_recover(const struct vicover_options *options,
                               const struct vicover_crash *crash,
                               vicover_job *job);

/* Waits at most timeout_ms until there is a crash whose process has ended before it was
 * over: of the guest called guest, or with NULL of any guest. OK: found is filled, for
 * vicover_resume(). ERR_TIMEOUT: there is none; with a timeout of 0 this only looks.
 * ERR_IO when journal_dir (NULL: /run/vicover) cannot be looked at; one that is not
 * there is made, unless this only looks. Wakes up at once when a process ends, and
 * needs no processor until then. Since 8. */
vicover_status vicover_find_interrupted(const char *journal_dir, const char *guest,
                                        int64_t timeout_ms,
                                        struct vicover_interrupted *found);

/* Goes on with a crash that another process has begun to handle, from where it got to:
 * a recovery that runs is guarded and gets memory at once, one that does not run yet is
 * built anew; the dump goes on in its file, or, where that is not possible, in another
 * one. The job is as one of vicover_recover(), with ADOPTED as soon as a recovery runs.
 * crash->domid is that of interrupted, and crash->config, initialised by the caller, is
 * not read but gets the guest's configuration; standby is 0. spec, name, dump_dir and
 * dump_file are the journal's and must be NULL, flags 0. ERR_BUSY when a process
 * handles the crash after all, or it is over; ERR_UNSUPPORTED when nobody can go on,
 * with the reason: then the journal has been put aside, under a name that ends in
 * .put-aside. Since 8. */
vicover_status vicover_resume(const struct vicover_options *options,
                              const struct vicover_interrupted *interrupted,
                              const struct vicover_crash *crash,
                              vicover_job *job);

/* Fills a snapshot; never blocks. */
vicover_status vicover_poll(vicover_job job, struct vicover_progress *progress);

/* Waits at most timeout_ms (VICOVER_FOREVER: without limit). OK: what was
 * waited for has happened, read it with vicover_poll(). ERR_TIMEOUT: not yet. */
vicover_status vicover_wait(vicover_job job, vicover_until until,
                            int64_t timeout_ms);

/* Asks the job to stop dumping. What was written stays readable and marked
 * incomplete; a dump that had not begun leaves no file. The job is over within a
 * second, unless there is memory to give back and a recovery to complete, which
 * are not cut short. A job that waits for an earlier one (on_recrash=queue) ends
 * with the guest untouched. When the dump is on a disk that does not answer, the
 * job ends all the same: the one thread that the kernel keeps waiting there is
 * left behind, does nothing more to the dump, and ends when the disk answers. A
 * process that exits meanwhile is kept by the kernel until then. */
vicover_status vicover_cancel(vicover_job job);

/* Changes the disk I/O policy of a running job: policy is what the option io
 * takes, such as "fixed:80M". It holds within a tenth of a second once recovery
 * runs; until then nothing holds the dump back anyway. ERR_OPTION with a text
 * that says what is allowed; then nothing changes. OK, and nothing to do, when
 * the job is over. Since 3. */
vicover_status vicover_set_io(vicover_job job, const char *policy);

/* Why a job's dump failed, causes included, into buffer, cut to fit (always
 * terminated when size > 0); empty when it did not. */
vicover_status vicover_job_error(vicover_job job, char *buffer, size_t size);

/* Path of the job's dump, or of the device or FIFO that the option sink names, into
 * buffer (always terminated when size > 0). Empty: there is none yet, or it has no
 * path, as with sink_fd. Until the dump is complete the path of a file of its own ends
 * in .incomplete, so ask again when the job is DONE. ERR_BUFFER, and nothing in buffer,
 * when it does not fit. */
vicover_status vicover_dump_path(vicover_job job, char *buffer, size_t size);

/* Reopens a dump of any format, in a file or on a block device, and checks
 * structure, counts and checksums; of an ELF dump structure and completeness. Reads
 * all of it, in the calling thread. OK whatever the verdict; ERR_IO when it, or the
 * .sums beside it, cannot be read or is of another kind, such as a FIFO. Since 2. */
vicover_status vicover_verify(const char *path,
                              struct vicover_verdict *verdict);

/* Makes a kdump file that was cut off, as by a copy, safe to open: readers trust what
 * it says of data that is gone. Pages of which data is missing become lost pages,
 * and the dump is marked as incomplete; nothing changes where nothing is missing.
 * cut_off, which may be NULL, is how many pages that were. ERR_IO when the file
 * cannot be read or written, is no kdump file, or has no page left. Since 6. */
vicover_status vicover_mend(const char *path, uint64_t *cut_off);

/* Forgets a finished job; ERR_BUSY while it runs. The handle is invalid
 * afterwards, and using it again is answered by ERR_HANDLE. */
vicover_status vicover_free(vicover_job job);

#ifdef __cplusplus
}
#endif
#endif /* VICOVER_H */
