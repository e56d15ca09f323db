"""One parser per file format of the raw data. Errors name the file, and the line where there is one."""
