# Starts inferd when this user logs on: makes a shortcut in the Startup folder, to
# %LOCALAPPDATA%\inferd\bin\inferd.exe, with its window minimised. See packaging/README.md.
$ErrorActionPreference = 'Stop'

$program = Join-Path $env:LOCALAPPDATA 'inferd\bin\inferd.exe'
if (-not (Test-Path $program)) {
    throw "there is no $program"
}
$shell = New-Object -ComObject WScript.Shell
$link = $shell.CreateShortcut((Join-Path ([Environment]::GetFolderPath('Startup')) 'inferd.lnk'))
$link.TargetPath = $program
$link.WorkingDirectory = Split-Path $program
$link.WindowStyle = 7
$link.Description = 'inferd, the local inference daemon'
$link.Save()
