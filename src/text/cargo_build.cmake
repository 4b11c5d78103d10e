# cmake -DCARGO= -DMANIFEST= -DTARGET_DIR= -DLIBRARY= -P: builds the crate, offline if its dependencies are there.
set(build ${CARGO} build --release --locked --manifest-path ${MANIFEST} --target-dir ${TARGET_DIR})
execute_process(COMMAND ${CARGO} fetch --locked --offline --manifest-path ${MANIFEST}
                RESULT_VARIABLE missing OUTPUT_QUIET ERROR_QUIET)
if(missing)
  message(STATUS "cargo downloads the crates of quire-text (once)")
  execute_process(COMMAND ${CARGO} fetch --locked --manifest-path ${MANIFEST} RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "cargo could not download the crates that ${MANIFEST} names; check the network")
  endif()
endif()
execute_process(COMMAND ${build} --offline RESULT_VARIABLE failed)
if(failed)
  message(FATAL_ERROR "cargo could not build ${MANIFEST}")
endif()
file(TOUCH ${LIBRARY})  # cargo keeps the old time when nothing changed; the build would run again and again
