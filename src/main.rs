//! Runs one command and turns its error into an exit code.

fn main() -> std::process::ExitCode {
    pillarbox::cli::main()
}
