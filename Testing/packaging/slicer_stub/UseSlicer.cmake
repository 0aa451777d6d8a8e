function(_install_files source target)
  foreach(file IN LISTS ARGN)
    if(NOT EXISTS "${source}/${file}")
      message(FATAL_ERROR "There is no file ${source}/${file}")
    endif()
    get_filename_component(folder "${file}" DIRECTORY)
    install(FILES "${source}/${file}" DESTINATION "${target}/${folder}")
  endforeach()
endfunction()

macro(ctkMacroCompilePythonScript)
  cmake_parse_arguments(MY "NO_INSTALL_SUBDIR;GLOBAL_TARGET" "TARGET_NAME;SOURCE_DIR;DESTINATION_DIR;INSTALL_DIR" "SCRIPTS;RESOURCES" ${ARGN})
  foreach(name TARGET_NAME SCRIPTS DESTINATION_DIR INSTALL_DIR)
    if(NOT DEFINED MY_${name})
      message(FATAL_ERROR "${name} is mandatory")
    endif()
  endforeach()
  if(NOT MY_NO_INSTALL_SUBDIR)
    message(FATAL_ERROR "Without NO_INSTALL_SUBDIR the folder's name is installed a second time")
  endif()
  if(NOT DEFINED MY_SOURCE_DIR)
    set(MY_SOURCE_DIR "${CMAKE_CURRENT_SOURCE_DIR}")
  endif()
  set(scripts "${MY_SCRIPTS}")
  list(TRANSFORM scripts REPLACE "\\.py$" "")
  list(TRANSFORM scripts APPEND ".py")
  _install_files("${MY_SOURCE_DIR}" "${MY_INSTALL_DIR}" ${scripts} ${MY_RESOURCES})
endmacro()

macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY_SLICER "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MY_SLICER_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "Unknown keywords: ${MY_SLICER_UNPARSED_ARGUMENTS}")
  endif()
  ctkMacroCompilePythonScript(
    TARGET_NAME ${MY_SLICER_NAME}
    SCRIPTS "${MY_SLICER_SCRIPTS}"
    RESOURCES "${MY_SLICER_RESOURCES}"
    DESTINATION_DIR "${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}"
    INSTALL_DIR "${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}"
    NO_INSTALL_SUBDIR
    )
endmacro()

function(slicer_add_python_unittest)
endfunction()
