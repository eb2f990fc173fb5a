// SPDX-License-Identifier: LGPL-2.1-or-later
//! What would become of a domain that crashes, asked beforehand.
#![allow(unsafe_code)]
#![allow(unreachable_pub)] // reached by C, not by Rust

use super::abi;
use super::domains::{self, Given};
use super::input;
use super::settings::read_settings;
use super::status::answer;
use crate::drain::preflight;

/// Says what would become of a domain that crashes.
///
/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn vicover_check_domain(
    options: *const abi::vicover_options,
    domain: *const abi::vicover_domain,
    found: *mut abi::vicover_preflight,
) -> abi::vicover_status {
    answer(|| {
        // SAFETY: the caller passes structs as the header says.
        let (settings, domain) = unsafe { (read_settings(options)?, input::read_struct(domain)?) };
        settings.refuse_other_places()?;
        settings.refuse_host_options()?;
        // SAFETY: both pointers are to libxl objects, as the header demands.
        let declined = unsafe { domains::refusal(Given::domain(&domain))? };
        let place = preflight::look(&settings.options, &settings.dump_dir);
        let mut answer = abi::vicover_preflight {
            struct_size: size_of::<abi::vicover_preflight>(),
            dump_room: place.room.unwrap_or(u64::MAX),
            declined: [0; 512],
            no_dump: [0; 512],
        };
        input::put_text(&mut answer.declined, &declined.unwrap_or_default());
        input::put_text(&mut answer.no_dump, &place.no_dump.unwrap_or_default());
        // SAFETY: as above.
        unsafe { input::write_struct(found, &answer) }
    })
}
