//! Signature vectors, made anew by botocore, the signer of AWS's own command line.

use crate::sh::{Failure, Step, find_program, read, root, write};

const SCRIPT: &str = "xtask/python/vectors.py";
const VECTORS: &str = "sigv4-presign/tests/data/botocore.txt";

/// Pinned, so that the vectors change when this line does and not before.
const BOTOCORE: &str = "botocore==1.44.5";

/// Where botocore is installed; `cargo clean` removes it.
const ENVIRONMENT: &str = "target/vectors";

pub(crate) fn run(args: &[String]) -> Result<(), Failure> {
    let mut check = false;
    for arg in args {
        match arg.as_str() {
            "--check" => check = true,
            other => return Err(Failure::unknown_argument(other)),
        }
    }
    if find_program("python3").is_none() {
        return Err(Failure::failed("python3 is not installed"));
    }
    Step::new("python3")
        .args(["-m", "venv", ENVIRONMENT])
        .run()?;
    let python = root().join(ENVIRONMENT).join("bin/python");
    Step::new(&python)
        .args(["-m", "pip", "install", "--quiet", BOTOCORE])
        .run()?;
    let made = Step::new(&python).arg(SCRIPT).output()?;

    let path = root().join(VECTORS);
    if !check {
        write(&path, &made)?;
        println!("written to {VECTORS}");
    } else if read(&path)? == made {
        println!("{VECTORS} is what botocore makes");
    } else {
        return Err(Failure::failed(format!(
            "{VECTORS} is not what botocore makes: run cargo xtask vectors"
        )));
    }
    Ok(())
}
