//! What systemd is told, where it is systemd that started the agent or the driver for Docker.

use std::time::Duration;

use sd_notify::NotifyState;

/// How often at least the agent's loop turns, so that it is known to.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// A program as a service.
#[derive(Debug, Default)]
pub struct Service {
    ready: bool,
    status: String,
}

impl Service {
    /// How often [`Service::is_alive`] is to be called: at least twice in the time that
    /// the unit's `WatchdogSec` allows.
    pub fn watchdog_interval(&self) -> Duration {
        let asked = sd_notify::watchdog_enabled().map(|allowed| allowed / 2);
        asked.map_or(SIGN_OF_LIFE, |asked| asked.min(SIGN_OF_LIFE))
    }

    /// Says that it does its work now, and a line for `systemctl status`.
    pub fn is_ready(&mut self, status: &str) {
        if !self.ready {
            notify(&[NotifyState::Ready]);
        }
        if self.status != status {
            notify(&[NotifyState::Status(status)]);
            status.clone_into(&mut self.status);
        }
        self.ready = true;
    }

    /// Says that the loop turns.
    pub fn is_alive(&self) {
        notify(&[NotifyState::Watchdog]);
    }

    /// Says that it is about to end.
    pub fn is_stopping(&self) {
        notify(&[NotifyState::Stopping]);
    }
}

/// Without systemd, or where it does not listen, the program works all the same.
fn notify(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}
