# Compiler settings shared by every target, and the two functions that declare a library or a test binary.
add_library(quire_options INTERFACE)
target_include_directories(quire_options INTERFACE ${PROJECT_SOURCE_DIR}/src)
target_compile_options(quire_options INTERFACE -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers
                                               -fvisibility=hidden
                                               -ffp-contract=off)
target_link_libraries(quire_options INTERFACE Threads::Threads)
# GCC 12 reports overlaps inside std::string's own copies that cannot happen (its bug 105651).
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(quire_options INTERFACE -Wno-restrict)
endif()
if(QUIRE_SANITIZE)
  target_compile_options(quire_options INTERFACE -fsanitize=${QUIRE_SANITIZE} -fno-omit-frame-pointer
                                                 -fno-sanitize-recover=all)
  target_link_options(quire_options INTERFACE -fsanitize=${QUIRE_SANITIZE})
endif()

if(QUIRE_FUZZ)
  target_compile_options(quire_options INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(QUIRE_MUTANTS)
  target_compile_definitions(quire_options INTERFACE QUIRE_MUTANTS=1)
endif()

# quire_library(NAME [DEPS target...]): every .cc directly in the calling folder becomes static library quire_NAME.
function(quire_library name)
  cmake_parse_arguments(ARG "" "" "DEPS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS *.cc)
  add_library(quire_${name} STATIC ${sources})
  target_link_libraries(quire_${name} PUBLIC quire_options ${ARG_DEPS})
endfunction()

# quire_precompile(TARGET HEADER...): parses headers that cost seconds once for the target, not in each of its units.
# The sanitizer presets build without, and so find a unit that does not include what it uses. A source with options of its
# own must skip them: GCC 12 crashes where they were made with others.
function(quire_precompile target)
  target_precompile_headers(${target} PRIVATE ${ARGN})
  if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
    target_compile_options(${target} PRIVATE -fpch-preprocess) # for ccache
  endif()
endfunction()

# quire_hardly_optimise(TARGET): for sources that do not compute, in which compiling costs more than running. The sanitizers
# double the time to compile, so that with them it is -O0.
function(quire_hardly_optimise target)
  if(QUIRE_SANITIZE)
    target_compile_options(${target} PRIVATE -O0)
  else()
    target_compile_options(${target} PRIVATE -O1)
  endif()
endfunction()

# quire_test(NAME [COMPUTES] [DEPS target...] [LABELS label...]): every *_test.cc in the calling folder becomes binary
# NAME_test. Its own sources are hardly optimised, unless it COMPUTES.
function(quire_test name)
  cmake_parse_arguments(ARG "COMPUTES" "" "DEPS;LABELS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS *.cc)
  add_executable(${name}_test ${sources})
  target_link_libraries(${name}_test PRIVATE quire_options ${ARG_DEPS} GTest::gtest_main)
  target_compile_definitions(${name}_test PRIVATE QUIRE_TESTDATA="${PROJECT_SOURCE_DIR}/tests/data")
  target_include_directories(${name}_test PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  if(NOT ARG_COMPUTES)
    quire_hardly_optimise(${name}_test)
  endif()
  add_test(NAME ${name} COMMAND ${name}_test)
  if(ARG_LABELS)
    set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}")
  endif()
endfunction()

# quire_all_libraries(OUT): the libraries of src/ that exist, for tools that may use any of them.
function(quire_all_libraries out)
  set(found "")
  foreach(folder ${QUIRE_FOLDERS})
    if(TARGET quire_${folder})
      get_target_property(type quire_${folder} TYPE)
      if(NOT type STREQUAL EXECUTABLE)
        list(PREPEND found quire_${folder})
      endif()
    endif()
  endforeach()
  set(${out} ${found} PARENT_SCOPE)
endfunction()
