# SPDX-License-Identifier: Apache-2.0
# Compiles dsdt.asl (through the C preprocessor, so that it takes its numbers from machine.h) into
# AML and the AML into dsdt_aml.h, a C array.
#
# Included, it defines thaw_compile_dsdt(TARGET), which adds the header to TARGET's sources and its
# folder to TARGET's include path. Run as a script (cmake -DAML= -DHEADER= -P), it writes the header.

if(CMAKE_SCRIPT_MODE_FILE)
    file(READ ${AML} aml HEX)
    string(REGEX REPLACE "(................................)" "\\1\n" aml "${aml}")
    string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1, " aml "${aml}")
    file(WRITE ${HEADER} "/* Made from dsdt.asl */\nstatic const uint8_t dsdt_aml[] = {\n${aml}\n};\n")
    return()
endif()

set(THAW_DSDT_SOURCE_DIR ${CMAKE_CURRENT_LIST_DIR})

function(thaw_compile_dsdt target)
    set(source ${THAW_DSDT_SOURCE_DIR}/dsdt.asl)
    set(header ${CMAKE_CURRENT_BINARY_DIR}/dsdt/dsdt_aml.h)
    file(MAKE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/dsdt)
    add_custom_command(OUTPUT ${header}
        COMMAND ${CMAKE_C_COMPILER} -E -P -x assembler-with-cpp -I ${THAW_DSDT_SOURCE_DIR}
            -o dsdt.i.asl ${source}
        COMMAND ${IASL} -we -vr -vs -p dsdt dsdt.i.asl
        COMMAND ${CMAKE_COMMAND} -DAML=dsdt.aml -DHEADER=dsdt_aml.h
            -P ${THAW_DSDT_SOURCE_DIR}/dsdt.cmake
        WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/dsdt
        DEPENDS ${source} ${THAW_DSDT_SOURCE_DIR}/machine.h ${THAW_DSDT_SOURCE_DIR}/dsdt.cmake
        COMMENT "Compiling dsdt.asl"
        VERBATIM)
    target_sources(${target} PRIVATE ${header})
    target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/dsdt)
endfunction()
