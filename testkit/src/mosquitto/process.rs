//! The process: started, waited for, and ended.

use std::{
    fs::{self, File},
    io,
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;

use super::{POLL_INTERVAL, START_TIMEOUT, StartError, config::Ports};

/// A child that does not outlive this value.
#[derive(Debug)]
pub(super) struct Process(pub(super) Child);

impl Process {
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        kill_process(Pid::from_child(&self.0), signal)?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when the child is gone already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) async fn launch(
    program: &Path,
    directory: &Path,
    ports: &Ports,
) -> Result<Process, StartError> {
    let log_path = directory.join("log");
    let log = File::options().create(true).append(true).open(log_path)?;
    let begin = log.metadata()?.len();
    let child = Command::new(program)
        .arg("-c")
        .arg(directory.join("mosquitto.conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()?;
    let mut process = Process(child);
    let deadline = Instant::now() + START_TIMEOUT;
    // The line comes after the last listener was opened. Connecting alone could reach a stranger
    // who took the port while this broker is about to find that out.
    while !read_log(directory, begin).contains(" running\n") {
        poll(&mut process, deadline, directory, begin).await?;
    }
    for port in ports.all() {
        while TcpStream::connect(port.address()).await.is_err() {
            poll(&mut process, deadline, directory, begin).await?;
        }
    }
    Ok(process)
}

async fn poll(
    process: &mut Process,
    deadline: Instant,
    directory: &Path,
    begin: u64,
) -> Result<(), StartError> {
    if process.0.try_wait()?.is_some() {
        let log = read_log(directory, begin);
        return Err(StartError::Ended { log });
    }
    if Instant::now() > deadline {
        let log = read_log(directory, begin);
        return Err(StartError::NotReady { log });
    }
    tokio::time::sleep(POLL_INTERVAL).await;
    Ok(())
}

pub(super) fn read_log(directory: &Path, begin: u64) -> String {
    let bytes = fs::read(directory.join("log")).unwrap_or_default();
    let begin = usize::try_from(begin).unwrap_or(usize::MAX);
    String::from_utf8_lossy(bytes.get(begin..).unwrap_or_default()).into_owned()
}
