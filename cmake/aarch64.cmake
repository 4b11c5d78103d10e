# Toolchain file of preset aarch64: Debian's and Ubuntu's cross compiler, package g++-aarch64-linux-gnu.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
# The header-only libraries (JSON, CLI11) are those of the build machine.
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
