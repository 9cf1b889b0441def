// The Flex Consumption plan and the function app. Its settings are the contract with
// modzy_relay/settings.py: tests/infra compares names and defaults.

param name string
param planName string
param location string
param tags object
param identityId string
param identityClientId string

@description('Subnet for outgoing traffic; empty: none.')
param subnetId string

param maximumInstanceCount int
param instanceMemoryMB int
param componentConnectionString string
param hostAccountName string
param packageContainerUrl string
param uploadBlobEndpoint string
param uploadQueueEndpoint string
param uploadContainerName string
param vaultUri string
param modzyApiKeySecretName string
param uploadStorageKeySecretName string
param submissionsTableName string
param jobsQueueName string
param dueQueueName string
param resultsContainerName string
param modzyUrl string
param modzyModelId string
param modzyModelVersion string
param modzyInputName string
param modzyExplain string
param modzyJobTimeout string
param modzyRoutes string
param sweepSchedule string
param sweepLookback string
param giveUpAfter string
param followFor string
param submitTimeout string
param historySettle string

var platformSettings = [
  // Names only, no plain AzureWebJobsStorage: a value there, even an empty one, would win.
  { name: 'AzureWebJobsStorage__accountName', value: hostAccountName }
  { name: 'AzureWebJobsStorage__credential', value: 'managedidentity' }
  { name: 'AzureWebJobsStorage__clientId', value: identityClientId }
  { name: 'APPLICATIONINSIGHTS_CONNECTION_STRING', value: componentConnectionString }
  { name: 'APPLICATIONINSIGHTS_AUTHENTICATION_STRING', value: 'ClientId=${identityClientId};Authorization=AAD' }
  // For credentials that the app builds itself.
  { name: 'AZURE_CLIENT_ID', value: identityClientId }
  // As many as host.json lets in at a time, so that no invocation waits while its time-out runs.
  { name: 'PYTHON_THREADPOOL_THREAD_COUNT', value: '16' }
]

var relaySettings = [
  // The blob trigger also needs the queue address: its poison queue is in the watched account.
  { name: 'UploadStorage__blobServiceUri', value: uploadBlobEndpoint }
  { name: 'UploadStorage__queueServiceUri', value: uploadQueueEndpoint }
  { name: 'UploadStorage__credential', value: 'managedidentity' }
  { name: 'UploadStorage__clientId', value: identityClientId }
  { name: 'UPLOAD_CONTAINER', value: uploadContainerName }
  // The only source that Flex Consumption runs.
  { name: 'BLOB_TRIGGER_SOURCE', value: 'EventGrid' }
  { name: 'KEY_VAULT_URI', value: vaultUri }
  { name: 'MODZY_API_KEY_SECRET', value: modzyApiKeySecretName }
  { name: 'UPLOAD_STORAGE_KEY_SECRET', value: uploadStorageKeySecretName }
  { name: 'MODZY_URL', value: modzyUrl }
  { name: 'MODZY_MODEL_ID', value: modzyModelId }
  { name: 'MODZY_MODEL_VERSION', value: modzyModelVersion }
  { name: 'SUBMISSIONS_TABLE', value: submissionsTableName }
  { name: 'JOBS_QUEUE', value: jobsQueueName }
  { name: 'DUE_QUEUE', value: dueQueueName }
  { name: 'RESULTS_CONTAINER', value: resultsContainerName }
  { name: 'SWEEP_SCHEDULE', value: sweepSchedule }
  { name: 'SWEEP_LOOKBACK', value: sweepLookback }
  { name: 'GIVE_UP_AFTER', value: giveUpAfter }
  { name: 'FOLLOW_FOR', value: followFor }
  { name: 'SUBMIT_TIMEOUT', value: submitTimeout }
  { name: 'HISTORY_SETTLE', value: historySettle }
]

// Left out when empty: the app tells "not set" from "set to nothing".
var optionalSettings = filter([
  { name: 'MODZY_INPUT_NAME', value: modzyInputName }
  { name: 'MODZY_EXPLAIN', value: modzyExplain }
  { name: 'MODZY_JOB_TIMEOUT', value: modzyJobTimeout }
  { name: 'MODZY_ROUTES', value: modzyRoutes }
], setting => !empty(setting.value))

resource plan 'Microsoft.Web/serverfarms@2024-11-01' = {
  // checkov:skip=CKV_AZURE_225: every step is safe to repeat; zone redundancy would need always-ready instances in each zone
  name: planName
  location: location
  tags: tags
  kind: 'functionapp'
  sku: {
    name: 'FC1'
    tier: 'FlexConsumption'
  }
  properties: {
    reserved: true
  }
}

resource app 'Microsoft.Web/sites@2024-11-01' = {
  // checkov:skip=CKV_AZURE_17: Event Grid and Modzy present no client certificates
  // checkov:skip=CKV_AZURE_222: Event Grid and Modzy call the app from public addresses
  // checkov:skip=CKV_AZURE_213: Flex Consumption has no health-check path; the sweep's own heartbeat is watched
  // checkov:skip=CKV_AZURE_67: short JSON requests one at a time gain nothing from HTTP/2
  // checkov:skip=CKV_AZURE_212: Flex Consumption scales from zero; always-ready instances are a cost the operator decides on
  // checkov:skip=CKV_AZURE_18: short JSON requests one at a time gain nothing from HTTP/2
  // checkov:skip=CKV_AZURE_78: Flex Consumption has no FTP and refuses the setting
  name: name
  location: location
  // azd deploys to the one resource with the name of its service in azure.yaml.
  tags: union(tags, { 'azd-service-name': 'relay' })
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    virtualNetworkSubnetId: empty(subnetId) ? null : subnetId
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: packageContainerUrl
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identityId
          }
        }
      }
      runtime: {
        name: 'python'
        version: '3.13'
      }
      scaleAndConcurrency: {
        instanceMemoryMB: instanceMemoryMB
        maximumInstanceCount: maximumInstanceCount
      }
    }
    siteConfig: {
      minTlsVersion: '1.2'
      appSettings: concat(platformSettings, relaySettings, optionalSettings)
    }
  }
}

output name string = app.name
