//! A URL costs two allocations: itself, and the text that is hashed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::{Duration, UNIX_EPOCH};

use sigv4_presign::{Credentials, Request, Settings, Signer, presign};

struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: all of it is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are those that the system allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations<T>(work: impl FnOnce() -> T) -> usize {
    let before = COUNT.get();
    let result = work();
    let after = COUNT.get();
    drop(result);
    after - before
}

#[test]
fn two_allocations_a_url() {
    let time = UNIX_EPOCH + Duration::from_secs(1_440_938_160);
    let endpoint = "wss://a1b2c3example-ats.iot.us-east-1.amazonaws.com/mqtt";
    let long_token = "T+/=".repeat(300);
    let signer = Signer::new();
    for credentials in [
        Credentials::new("AKIDEXAMPLE", "secret"),
        Credentials::new("AKIDEXAMPLE", "secret").with_session_token(long_token),
    ] {
        signer
            .presign_iot(endpoint, "us-east-1", &credentials, time)
            .unwrap();
        let cached = allocations(|| {
            signer
                .presign_iot(endpoint, "us-east-1", &credentials, time)
                .unwrap()
        });
        assert_eq!(cached, 2);

        let headers = [("b", "1"), ("a", "2")];
        let url = format!("{endpoint}/%20/../x?b=1&a=2&c=%ff&d=ä");
        let request = Request::new("GET", &url).headers(&headers);
        let settings = Settings::new("us-east-1", "execute-api").expires(Duration::from_secs(60));
        let uncached = allocations(|| presign(&request, &credentials, time, &settings).unwrap());
        assert_eq!(uncached, 2, "a query and headers add none");
    }
}
